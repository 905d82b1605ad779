"""The audit of a finished run: who was kept and who was removed, by group. docs/audit.md defines the measures."""
