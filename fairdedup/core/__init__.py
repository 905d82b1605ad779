"""Arrays in, arrays out: the rules of semantic deduplication. No files, no Dask, no flag names.

Importing this package loads nothing else, and the list of rules (`rules.registry`) no library, so that the command line
prints it at once. Modules with kernels import `compiled`, and with it numba.
"""
