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
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

STOPPED = "stopped: the same command goes on"


class Job(NamedTuple):
    """A piece of work for one process."""

    title: str
    needs: str  # the title of a job that must be done before, or ""
    call: Callable[..., None]
    arguments: tuple[Any, ...]
    counts: bool = True  # whether it is a model, by which the time that is left is reckoned


class Progress:
    """Prints each job that is done, and how long the rest takes."""

    def __init__(self, jobs: list[Job]) -> None:
        self.models = sum(job.counts for job in jobs)
        self.trained = 0
        self.started = time.monotonic()

    def report(self, job: Job) -> None:
        """Count a job that is done, and print it."""
        self.trained += job.counts
        left = ""
        if self.trained:
            spent = time.monotonic() - self.started
            left = f", {spent / self.trained * (self.models - self.trained) / 60:.0f} min left"
        print(f"{job.title}: done, {self.trained} of {self.models} models{left}", file=sys.stderr, flush=True)


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Give torch one thread, and silence open_clip's warning of random weights, which are the point here."""
    threads, level = torch.get_num_threads(), logging.getLogger().level
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        logging.getLogger().setLevel(level)


def start_worker(parent: int) -> None:
    """Set up a process for jobs, which ends when the command is gone, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command answers Ctrl-C for all

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def call_job(job: Job) -> None:
    """Do a job in this process."""
    with use_one_thread():
        job.call(*job.arguments)


def run_jobs(jobs: list[Job], processes: int) -> None:
    """Run jobs in their order, one for each process at a time; one process is this one.

    Parameters
    ----------
    jobs : list of Job
        What is to do; a job comes after the one that it needs.
    processes : int
        Number of processes.
    """
    progress = Progress(jobs)
    if processes == 1:
        for job in jobs:
            call_job(job)
            progress.report(job)
        return
    waiting, done = list(jobs), set[str]()
    running: dict[Future[None], Job] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, start_worker, (os.getpid(),)) as pool:
        while waiting or running:
            ready = [job for job in waiting if not job.needs or job.needs in done][: processes - len(running)]
            for job in ready:
                waiting.remove(job)
                running[pool.submit(call_job, job)] = job
            try:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt:
                print(STOPPED, file=sys.stderr, flush=True)
                os._exit(130)  # the pool would wait for jobs; they end when this process is gone
            for future in finished:
                job = running.pop(future)
                try:
                    future.result()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                done.add(job.title)
                progress.report(job)
