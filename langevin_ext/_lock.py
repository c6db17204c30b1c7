"""One process at a time in a folder, or on a file."""

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path

from ._files import writing

NAME = ".lock"
NOT_THERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # from file systems without locks


@contextlib.contextmanager
def locked(path, argument):
    """Holds a folder by the file .lock in it, a file by .NAME.lock beside it, while the block runs.

    The text of the lock says which process on which machine has it. The system gives it back when that process ends in
    whatever way, so a file that a killed process left behind locks nothing.

    Args:
        path: a folder, which must exist, or a file, which need not.
        argument: how messages name it, such as "train: out".

    Raises:
        ValueError: another process (or another thread of this one) has it.
        OSError: the folder is not writable.
    """
    path = Path(path)
    lock = path / NAME if path.is_dir() else path.with_name(f".{path.name}{NAME}")
    handle = _opened(lock, path, argument)
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)  # before the lock is given back, so that no one else holds this file
        os.close(handle)


def _opened(lock, path, argument):
    """A handle of the file `lock`, locked."""
    while True:
        with writing(lock):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
            os.close(handle)  # the file was deleted by the process that held it, in between
        except OSError as error:
            if error.errno in NOT_THERE:
                warnings.warn(f"{argument}: no lock can be had on {path}; use it from one process alone", stacklevel=2)
                return handle
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(handle)
            if not isinstance(error, BlockingIOError):
                raise
            raise ValueError(
                f"{argument} must not be in use, got {path}, on which {owner} is at work; wait for its end or give"
                " another"
            ) from None
