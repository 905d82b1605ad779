"""Arrays in, arrays out: the rules of semantic deduplication, with no files, no Dask and no configuration."""
