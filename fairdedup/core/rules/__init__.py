"""The rules, one file each; `registry` lists them. A new rule is one class in one file, and a test."""
