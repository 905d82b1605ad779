"""Replacement in a finished run: vanished samples leave it, and removed samples that were alike are kept instead.

`replacing` is the stage, `group_rewriting` and `guarantee_checks` have its tasks, `promotion` chooses who is promoted.
"""

from fairdedup.stages.replacement.replacing import complete_replacement, list_removed, replace, replace_again

__all__ = ["complete_replacement", "list_removed", "replace", "replace_again"]
