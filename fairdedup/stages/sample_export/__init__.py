"""Samples written out of a finished run: as tar shards, as a tree of files, as Parquet with the images in it."""
