"""The limit of open files of this process and of those that it starts: Dask hangs where it is too low."""

from __future__ import annotations

from fairdedup.errors import UserError

FILES, LEAST_FILES = 4096, 256  # what is requested, and what is needed


def allow_files() -> None:
    """Raise the limit of open files of this process and of the workers that it starts.

    Raises
    ------
    UserError
        If the machine allows too few, since Dask would hang.
    """
    try:
        import resource
    except ImportError:  # this system has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < LEAST_FILES:
        raise UserError(
            f"this process may open only {most} files. Raise the hard limit (`ulimit -Hn`) to {FILES}, which only root "
            f"may do, for example in /etc/security/limits.conf or by `docker run --ulimit nofile={FILES}`."
        )
