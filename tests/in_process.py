"""Runs every stage in this process, with an encoder that only averages colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fairdedup.progress import StageProgress
from fairdedup.tasks import Task


class Colours:
    """An encoder that averages the colours of each quarter."""

    def encode_images(self, images: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])


class Here:
    """Runner of tasks in this process."""

    progress = StageProgress(quiet=True)
    scheduler, number = None, 1

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        return [function(*task.arguments) for task in tasks]
