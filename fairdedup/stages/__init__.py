"""One file a stage: each maps pure functions over shards on Dask, files in, files out; none imports another."""
