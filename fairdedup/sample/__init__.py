"""The sample data set: drawn pictures of people at work, with captions, true groups and planted copies."""

from fairdedup.sample.write import SampleSummary, draw_pictures, write_sample

__all__ = ["SampleSummary", "draw_pictures", "write_sample"]
