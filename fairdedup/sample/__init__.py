"""The sample data set: drawn pictures of people at work, with captions, true groups and planted copies."""

from fairdedup.sample.write import SampleSummary, write_sample

__all__ = ["SampleSummary", "write_sample"]
