"""Estimates what a study of train_on_subsets.py takes: here by timing a few steps, on a GPU by counting operations."""

from __future__ import annotations

import time

import numpy as np
from captioned_faces import Setting, draw_set
from faces import VALUES, make_label_table
from small_clip import Recipe, count_flops, create_clip, read_captions, train_clip
from subset_jobs import use_one_thread

LARGER = Recipe(model="RN50", pixels=128, steps=1500, batch=256)  # what a GPU would be used for
GPU_TFLOPS = 40.0  # sustained, of a GPU that is not named
TIMED_STEPS = 3


def estimate(recipe: Recipe, models: int, processes: int, tflops: float) -> list[str]:
    """Return what the study would take here, by a few steps, and on a GPU of a stated rate, by its operations."""
    model, _ = create_clip(recipe)
    parameters = sum(p.numel() for p in model.parameters())
    flops, larger = count_flops(recipe), count_flops(LARGER)
    seconds = time_step(recipe)
    here = models * recipe.steps * seconds / processes / 60
    passes = models * recipe.steps * recipe.batch
    bigger = models * LARGER.steps * LARGER.batch
    return [
        f"{models} models of {parameters / 1e6:.1f} million weights, {recipe.steps} steps of {recipe.batch} pictures "
        f"of {recipe.pixels} pixels: {passes * flops / 1e15:.1f} Pflop of training",
        f"here, {processes} processes: {seconds:.2f} s a step, {recipe.steps * seconds:.0f} s a model, "
        f"{here:.0f} min in all",
        f"on a GPU of {tflops:g} sustained Tflop/s: {passes * flops / tflops / 1e12 / 60:.1f} min in all",
        f"{models} of {LARGER.model} at {LARGER.pixels} pixels, {LARGER.steps} steps of {LARGER.batch}: "
        f"{bigger * larger / 1e15:.0f} Pflop, {bigger * larger / tflops / 1e12 / 3600:.1f} h on that GPU",
        "sets are drawn, embedded and pruned besides: about the time of a model for each seed",
    ]


def time_step(recipe: Recipe) -> float:
    """Return the seconds of a training step, on random pictures and one thread."""
    rng = np.random.default_rng(0)
    lines = [{a: v[int(rng.integers(len(v)))] for a, v in VALUES.items()} for _ in range(400)]
    rows = draw_set(make_label_table(lines), Setting(), 0)
    images = rng.integers(0, 256, (len(rows), 3, recipe.pixels, recipe.pixels), dtype=np.uint8)
    data, codes = read_captions(rows, recipe, images)
    took = []
    with use_one_thread():
        for steps in (1, 1 + TIMED_STEPS):
            started = time.perf_counter()
            train_clip(data, codes, np.arange(len(rows)), recipe, steps, 0)
            took.append(time.perf_counter() - started)
    return (took[1] - took[0]) / TIMED_STEPS
