"""Runs the jobs of train_on_subsets.py, one thread each, a few at a time, and says how long it still takes.

Two models side by side train faster than one on two threads. A job writes its own result, so a stop loses only those
that run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, NamedTuple

import torch


class Job(NamedTuple):
    """A piece of work for one process."""

    title: str
    needs: str  # the title of a job that must be done before, or ""
    call: Callable[..., None]
    arguments: tuple[Any, ...]
    counts: bool = True  # whether it is a model, by which the time that is left is reckoned


def start_worker(parent: int, device: str) -> None:
    """Give a process one thread and quiet libraries, and end it when the command is gone, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command answers Ctrl-C for all
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights, which are the point
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(device == "cpu")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_jobs(jobs: list[Job], processes: int, device: str) -> None:
    """Run jobs in their order, one for each process at a time, and print what is done and how long it still takes."""
    waiting, done, trained = list(jobs), set[str](), 0
    models = sum(job.counts for job in jobs)
    running: dict[Future[None], Job] = {}
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, start_worker, (os.getpid(), device)) as pool:
        while waiting or running:
            ready = [job for job in waiting if not job.needs or job.needs in done][: processes - len(running)]
            for job in ready:
                waiting.remove(job)
                running[pool.submit(job.call, *job.arguments)] = job
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                done.add(job.title)
                trained += job.counts
                spent = time.monotonic() - started
                left = f", {spent / trained * (models - trained) / 60:.0f} min left" if trained else ""
                print(f"{job.title}: done, {trained} of {models} models{left}", file=sys.stderr, flush=True)
