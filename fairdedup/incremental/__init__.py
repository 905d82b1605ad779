"""Runs that continue earlier runs (``--against``): what they inherit, what they leave, and how far rows drift."""
