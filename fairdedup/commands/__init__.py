"""One module for each command. `run.py` shows a whole run on one page; the commands of single stages call its steps.

Two modules are not commands: `evaluation.py` reads the samples of ``--exclude-near``, and `finish.py` ends a run.
"""
