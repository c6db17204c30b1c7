"""Files that are either the old ones or the new ones, never half of each."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path):
    """Gives a temporary path in the folder of `path`; what was written there becomes `path` when the block ends well.

    The contents are on the disk before the name is (fsync, rename, fsync of the folder), so that a crash at any moment
    leaves the earlier file or the complete new one. If the block raises, the earlier file stays as it was.

    Args:
        path: the file to write; its folder must exist.

    Yields:
        pathlib.Path of the temporary file, `.NAME.PID.tmp`.

    Raises:
        OSError: the folder is missing, not writable or full; says that the earlier file is kept.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, "; what was there before is kept"):
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the folder is gone, or has become read-only
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path, consequence=""):
    """Says in one sentence, in an OSError of the same kind, which file could not be written and why.

    The system's own errors name the temporary file, or, where the disk is full, none.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        sentence = f"cannot write {path}: {reason[:1].lower()}{reason[1:]}{consequence}"
        clear = type(error)(sentence)
        clear.errno = error.errno
        raise clear from error


def write_figure(figure, path) -> Path:
    """Writes a matplotlib figure as PNG; returns the path."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return Path(path)


def _flush(path):
    """Waits until the file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporaries(folder) -> None:
    """Deletes what processes that were killed in `atomic_path` have left in `folder`."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)
