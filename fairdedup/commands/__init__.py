"""One module for each command. `run` shows a whole run on one page; the commands of single stages call its steps.

`evaluation.py` is no command: it holds what ``--exclude-near`` adds to a decision.
"""
