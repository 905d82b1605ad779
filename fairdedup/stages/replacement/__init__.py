"""Replacement in a finished run: vanished samples leave it, and removed samples that were alike are kept instead.

`replacing` is the stage, `group_rewriting`, `kept_rewriting` and `guarantee_checks` have its tasks, `promotion` chooses
who is promoted, `gone_lists` keeps the lists.
"""

from fairdedup.stages.replacement.gone_lists import list_removed
from fairdedup.stages.replacement.replacing import complete_replacement, replace, replace_again

__all__ = ["complete_replacement", "list_removed", "replace", "replace_again"]
