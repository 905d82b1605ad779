"""The inputs that fairdedup reads. Each format is one class in a file of its own, and a registry lists them."""

from fairdedup.datasets.dataset import Dataset, EmbeddingShard, ImageShard, Sample
from fairdedup.datasets.inputs import open_input

__all__ = ["Dataset", "EmbeddingShard", "ImageShard", "Sample", "open_input"]
