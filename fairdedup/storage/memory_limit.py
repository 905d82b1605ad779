"""Limits the memory of a child process that works on what is not trusted: a picture, or a condition."""

from __future__ import annotations


def limit_memory(amount: int) -> None:
    """Limit the memory of this process, and let the system end it before others if memory runs out.

    Elsewhere than on Linux nothing happens.

    Parameters
    ----------
    amount : int
        Bytes that it may use besides what it uses now.
    """
    try:
        import resource

        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        with open("/proc/self/statm") as file:
            data = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + amount, data + amount))
    except (ImportError, OSError, ValueError):  # not Linux
        return
