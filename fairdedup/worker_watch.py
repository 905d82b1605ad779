"""Notices that a scheduler has no workers, says so in one line, and ends a wait that might have no end.

It never starts or stops a worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fairdedup.errors import FairdedupError, UserError

SAY_AFTER = 5.0  # seconds without a worker before a line says so
LOOK_EVERY = 1.0  # seconds between two questions to the scheduler
PATIENCE = 300.0  # seconds without a worker before the command ends, unless Dask's own setting says how many
SETTING = "distributed.scheduler.no-workers-timeout"
VARIABLE = "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT"


def read_patience() -> float:
    """Return after how many seconds without a worker a command ends: Dask's setting, else `PATIENCE`.

    Raises
    ------
    UserError
        If the setting is not a time.
    """
    import dask
    from dask.utils import parse_timedelta

    setting = dask.config.get(SETTING, None)
    try:
        return PATIENCE if setting is None else float(parse_timedelta(setting))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{SETTING} of Dask ({VARIABLE}) must be a time such as 10m; got {setting!r}") from None


class WorkerWatch:
    """Counts the workers of a scheduler while a command waits for them.

    Parameters
    ----------
    address : str
        The scheduler, for messages.
    count_workers : callable
        Asks the scheduler how many workers it has.
    warn : callable
        Prints one line.
    """

    def __init__(self, address: str, count_workers: Callable[[], int], warn: Callable[[str], None]) -> None:
        self.address = address
        self.patience = read_patience()
        self._count, self._warn = count_workers, warn
        self._is_said = False
        self._last_seen = time.monotonic()

    def _look(self) -> bool:
        """Return whether there is a worker. Say once that there is none."""
        if self._count():
            self._last_seen, self._is_said = time.monotonic(), False
            return True
        if not self._is_said and self.waited >= min(SAY_AFTER, self.patience / 2):
            self._is_said = True
            self._warn(f"waiting for workers at {self.address}: start one by `dask worker {self.address}`")
        return False

    @property
    def waited(self) -> float:
        """Seconds since the scheduler had a worker."""
        return time.monotonic() - self._last_seen

    @property
    def is_over(self) -> bool:
        """Whether the wait was too long."""
        return self.waited >= self.patience

    def explain(self) -> str:
        """Return the message of a command that ends because no worker came."""
        return (
            f"the scheduler {self.address} has had no worker for {self.patience:g} seconds: start "
            f"`dask worker {self.address}`, then run the same command to resume ({VARIABLE}=1h waits longer)"
        )

    def wait(self) -> None:
        """Wait until there is a worker.

        Raises
        ------
        FairdedupError
            If none has come in time, or the scheduler is lost.
        """
        self._last_seen = time.monotonic()
        try:
            while not self._look():
                if self.is_over:
                    raise FairdedupError(self.explain())
                time.sleep(min(LOOK_EVERY, self.patience / 4))
        except (OSError, TimeoutError) as error:
            raise FairdedupError(
                f"the scheduler {self.address} was lost ({type(error).__name__}) before it had a worker: start it "
                "again, then run the same command to resume"
            ) from None

    @contextmanager
    def during(self, give_up: Callable[[], None]) -> Iterator[None]:
        """Look from a thread while the block waits for results, and call `give_up` once no worker came in time."""
        ended = threading.Event()
        self._last_seen, self._is_said = time.monotonic(), False

        def look() -> None:
            while not ended.wait(min(LOOK_EVERY, self.patience / 4)):
                try:
                    if self._look() or not self.is_over or ended.is_set():
                        continue
                    give_up()
                except Exception:  # the scheduler is lost or the client closed, which the block notices itself
                    pass
                return

        threading.Thread(target=look, name="fairdedup-worker-watch", daemon=True).start()
        try:
            yield
        finally:
            ended.set()
