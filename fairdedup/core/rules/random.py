"""`random`: rows drawn from the whole data set are kept. A baseline that does not look at the vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairdedup.core.rules.base import Procedure, Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fairdedup.core.model import Options


class Random(Rule):
    """Keep the rows with the lowest hashes; removed rows have no representative."""

    name = "random"
    summary = "random rows of the whole data set; it neither sweeps nor looks at the vectors"
    source = "baseline"
    reads = ("seed",)
    procedure = Procedure.DRAW

    def rank_rows(self, rows: NDArray[np.int64], options: Options) -> NDArray[np.int64]:
        """Return a hash of each row and the seed."""
        from fairdedup.core.row_hash import row_hash

        return row_hash(rows, options.seed)
