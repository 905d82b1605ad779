"""The first stage: input shards to embedding shards in clip-retrieval's layout, and the reasons of rejected rows.

`input_embedding` is the stage, `shard_embedding` has its tasks, `embedding_checks` the checks of all shards together.
"""

from fairdedup.stages.embedding.input_embedding import (
    EmbeddingPlan,
    embed_input,
    find_finished_shards,
    fingerprint_shards,
)

__all__ = ["EmbeddingPlan", "embed_input", "find_finished_shards", "fingerprint_shards"]
