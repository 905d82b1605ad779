"""Arrays in, arrays out: the rules of semantic deduplication. No files, no Dask, no configuration, no flag names.

Importing this package loads nothing else. Modules with kernels import `compiled`, and with it numba; the list of rules
(`rules.registry`) needs numpy alone, so that the command line can print it at once.
"""
