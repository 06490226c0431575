"""One process at a time in a directory."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fastmtl.training.checkpoint import RunError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class DirectoryLock:
    """That this process alone writes to a directory; made by `locked`."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    def check(self) -> None:
        """Raise RunError if the directory is no longer the one that was locked."""
        if self.descriptor is not None and not _is_at(self.descriptor, self.path):
            raise RunError(f"{self.path.parent}: was removed or replaced while it was written to")


@contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[DirectoryLock]:
    """Hold a directory for this process inside the block.

    The lock is the system's (flock) on the file .lock, which says who holds it: it ends with the
    process, however that ends, and a file left behind by a killed one binds nobody. Where the
    system or the file system has no such locks a warning says so, and nothing is held.

    Args:
        directory: an existing one.

    Raises:
        RunError: naming the process that holds the directory.
        OSError: if the directory cannot be written to.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory, locked(directory):
        ...     with locked(directory):
        ...         pass
        Traceback (most recent call last):
            ...
        fastmtl.training.checkpoint.RunError: ...: in use by process ... on ...
    """
    path = Path(directory) / NAME
    lock = DirectoryLock(path, None if fcntl is None else _acquire(path))
    if lock.descriptor is None:
        warnings.warn(
            f"{directory}: cannot be locked here: start no second run in it", stacklevel=3
        )
    try:
        yield lock
    finally:
        if lock.descriptor is not None:
            if _is_at(lock.descriptor, path):
                # Before it is released: afterwards it may be another's.
                with contextlib.suppress(OSError):
                    path.unlink()
            os.close(lock.descriptor)


def _acquire(path: Path) -> int | None:
    """A descriptor that holds the lock, None where there are no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[union-attr]
            # Whoever held it before may have removed the file in between.
            if _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                path.unlink(missing_ok=True)
                return None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise RunError(f"{path.parent}: in use by {holder or 'another process'}") from None
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Write down who holds the lock; on a full disk it holds without a name."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` is the file of `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False
