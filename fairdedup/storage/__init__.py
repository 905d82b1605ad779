"""Files of a run directory: where each lies, how it is written so that a half-written one is never read."""
