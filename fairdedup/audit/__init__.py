"""Who was kept and who was removed, by group: the audit of a finished run. docs/audit.md defines the measures."""
