"""The folder of a run in shards.

    OUT/shards/run.json                      what is drawn: settings, model, range, size of a shard
    OUT/shards/shard-LOW-HIGH.npz            the finished samples LOW, ..., HIGH - 1
    OUT/shards/run-LOW-HIGH.safetensors      a shard in progress

`shards` is removed when the run is complete, and OUT is then that of any other run.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from .. import _progress
from .._files import atomic_path, remove_temporaries
from .._lock import NAME as LOCK
from .._lock import locked
from .arrays import BROKEN, Images
from .settings import difference

SHARDS, REMOVED, RUN = "shards", ".shards-removed", "run.json"
RESULTS = {"samples.npz", "grid.png", "trajectory.png", "scatter.png", "settings.json"}
ADVICE = "delete it and call again to draw these samples anew"
FORMAT = "langevin_ext shards 1"


class Shards:
    """The shards of one run on disk.

    Args:
        out: folder of the run.
        first, n: its samples.
        size: samples in a shard.
        identity: what they depend on, JSON-able; see `settings.identity`.

    Attributes:
        ranges: list of (low, high), the samples of each shard.
    """

    def __init__(self, out, first, n, size, identity):
        self.out, self.folder, self.first = Path(out), Path(out) / SHARDS, first
        self.ranges = [(low, min(low + size, first + n)) for low in range(first, first + n, size)]
        self.run = {"format": FORMAT, "first": first, "n": n, "shard_size": size, **json.loads(json.dumps(identity))}
        self.digest = hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()

    def open(self, held) -> None:
        """Makes the folder, or takes that of the same run, and locks it until `held`, an ExitStack, is closed.

        Raises:
            ValueError: it holds something else, a run with another setting, which is named, or is in use.
        """
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"sample: out must be a folder, got the file {self.out}")
        self.out.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked(self.out, "sample: out"))
        shutil.rmtree(self.out / REMOVED, ignore_errors=True)  # of a run that was complete
        names = {path.name for path in self.out.iterdir() if not path.name.endswith((".tmp", LOCK))} - {_progress.NAME}
        if names and (SHARDS not in names or names - RESULTS - {SHARDS}):
            raise ValueError(f"sample: out must be a new or empty folder, got {self.out}, which holds other files")
        then = stored(self.out)
        if then is None:
            self.folder.mkdir(exist_ok=True)
            with atomic_path(self.folder / RUN) as temporary:
                temporary.write_text(json.dumps(self.run, indent=2) + "\n")
        elif differs := difference(self.run, then):
            name, now, before = differs
            raise ValueError(
                f"sample: {name} must be that of the run in {self.out}, {_short(before)}, got {_short(now)};"
                " use another folder or delete it"
            )
        for folder in (self.out, self.folder):
            remove_temporaries(folder)

    def path(self, low, high) -> Path:
        return self.folder / f"shard-{low:010d}-{high:010d}.npz"

    def progress_path(self, low, high) -> Path:
        """The file that keeps a shard in progress."""
        return self.folder / f"run-{low:010d}-{high:010d}.safetensors"

    def missing(self) -> list[tuple[int, int]]:
        """The ranges that are still to be drawn."""
        return [(low, high) for low, high in self.ranges if not self.path(low, high).exists()]

    def write(self, low, high, x, info) -> None:
        """Writes a finished shard and removes its progress."""
        kept = ("seconds", "calls", "diagnostics", "snapshot_places")
        about = {"settings_hash": self.digest, **{name: info[name] for name in kept}}
        arrays = {f"snapshot_{i}": snapshot.numpy() for i, snapshot in enumerate(info["snapshots"])}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with atomic_path(self.path(low, high)) as temporary, open(temporary, "wb") as file:
            np.savez(file, images=x.cpu().numpy(), first=low, about=text, **arrays)
        self.progress_path(low, high).unlink(missing_ok=True)

    def read(self, low, high) -> tuple[Images, dict]:
        """(images, what its run reported) of a finished shard.

        Raises:
            ValueError: the file is damaged, or not of this run.
        """
        path = self.path(low, high)
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                about["snapshots"] = [file[name] for name in file.files if name.startswith("snapshot_")]
        except BROKEN as error:
            raise ValueError(f"sample: {path} is damaged, {ADVICE}: {error}") from error
        images = Images(path, "sample", ADVICE)
        if about.get("settings_hash") != self.digest or images.shape[0] != high - low:
            raise ValueError(f"sample: {path} must be of the run in {self.out}, got one of another; delete it")
        return images, about

    def remove(self) -> None:
        """Deletes the shards of a complete run; it counts as complete from the first moment on."""
        self.folder.rename(self.out / REMOVED)
        shutil.rmtree(self.out / REMOVED)


def stored(out) -> dict | None:
    """The run that a folder holds, or None."""
    path = Path(out) / SHARDS / RUN
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text())
        if run["format"] != FORMAT:
            raise ValueError(f"format {run['format']!r}")
        return run
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"sample: {path} must be that of a run in shards, got {error}; delete the folder") from error


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
