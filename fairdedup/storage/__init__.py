"""Files of a run directory: where each is, and how it is written so that no incomplete file is ever read."""
