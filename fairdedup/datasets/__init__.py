"""The inputs that fairdedup reads: one class and one file a format, listed in one registry."""

from fairdedup.datasets.dataset import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.inputs import open_input

__all__ = ["Dataset", "EmbeddingShard", "ImageShard", "Sample", "open_input"]
