"""Arrays in, arrays out: the rules of semantic deduplication. No files, no Dask, no flag names.

Importing this package loads nothing else. `rules.registry` loads no library, so the command line lists the rules at
once. Modules with kernels import `compiled`, which loads numba.
"""
