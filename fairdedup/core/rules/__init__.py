"""The rules: one file each, listed in `registry`. A new rule is one class in one file, and its test."""
