"""`sample_shards`: a run of any number of samples, by any number of processes, that goes to disk as it goes."""

import contextlib
import json
import math
import time
from typing import Any

import torch

from .. import __version__, _progress
from .._files import atomic_path
from .._group import Group, LostProcess, processes
from ..samplers.inputs import integer
from ..samplers.job import prepare
from ..samplers.record import fingerprint
from ..samplers.report import backend_of, settings_of
from ..sampling import sample
from .arrays import Images, write_images
from .folder import Shards, stored
from .settings import combined, identity, spans

__all__ = ["default_size", "sample_shards"]

SIZE, VALUES = 1000, 2**22  # samples in a shard, and values of x where that is fewer
SHOWN, WAY = 100, 10  # samples in pictures: in the grid, on their way
LOOK = 5.0  # seconds between looks at what the other processes have finished
WATCHING = ("status", "callback", "snapshot", "snapshot_n", "checkpoint", "return_info")


def default_size(shape, batch_size=None) -> int:
    """Samples in a shard: 1000, or as many as have 2^22 values where that is fewer, but at least one batch."""
    return max(min(SIZE, max(1, VALUES // math.prod(shape))), batch_size or 1)


def sample_shards(
    model, scheme="annealed", n=16, *, out, shard_size=None, progress=True, facts=None, finish=None, **arguments
) -> dict:
    """Draws the samples of `sample(model, scheme, n, ...)` into a folder, in shards, alone or under torchrun.

    Sample i depends on (seed, first + i), the scheme and the model alone, so that any number of processes writes the
    same samples: bit for bit, as a shard is always drawn in the same batches (on one kind of device). A call that was
    stopped, or that lost a process, is completed by the same call, with any number of processes: it draws exactly the
    missing shards. Process k of K draws every K-th of these, and process 0 merges all. All processes must see `out`.

    Args:
        model, scheme, n: as for `sample`.
        out: folder, new, empty or that of the same run; samples.npz (images, seed, first) and settings.json at the end.
        shard_size: samples in a shard; by default 1000, or as many as have 2^22 values of x, at least one batch.
        progress: show a bar, in process 0.
        facts: dictionary, or list of them, that tells which model it is by its `sha256`; by default its fingerprint.
        finish: called in process 0 before the shards are deleted with (x, info): the first 100 samples, and what
            `sample` returns as info, the snapshots those of the first 10 samples after each level. What it returns is
            written to settings.json.
        arguments: others of `sample`, without those that watch the run.

    Returns:
        What settings.json holds, in process 0; in the others an empty dictionary.

    Raises:
        ValueError, TypeError, FloatingPointError: as `sample`; or `out` holds other files or another run or is in use
            by another process, or a shard is damaged.
        ConnectionError: another process was lost; names the samples that are missing.
    """
    if watching := [name for name in WATCHING if name in arguments]:
        raise ValueError(f"sample_shards: argument {watching[0]} is for `sample` alone; leave it out")
    with processes() as group, contextlib.ExitStack() as held:
        job = prepare(model, scheme, n, **arguments)
        if facts is None:
            facts = {"fingerprint": "".join(map(fingerprint, job.models))}
        settings = settings_of(job, None)
        who = identity(settings, facts)
        group.check_equal(json.dumps(who, default=str), "sample: settings and model must be equal in all processes")
        shards = Shards(out, job.first, job.plan.n, _size(shard_size, job, out, group, arguments), who)
        group.first(lambda: shards.open(held))
        _draw(shards, group, job, progress, (model, scheme, arguments))
        written: dict = {}
        group.first(lambda: written.update(_merge(shards, job, settings, facts, finish)))
    return written


def _size(size, job, out, group, arguments) -> int:
    """Samples in a shard, as process 0 sees it: the given number, that of the run to continue, or the default."""
    if size is not None:
        size = integer("shard_size", size, 1)

    def chosen():
        return (
            size or (stored(out) or {}).get("shard_size") or default_size(job.plan.shape, arguments.get("batch_size"))
        )

    return group.first(chosen)


def _draw(shards, group, job, progress, call) -> None:
    """Draws the missing shards of this process, then waits for the others."""
    model, scheme, arguments = call
    to_do = torch.tensor([not shards.path(*each).exists() for each in shards.ranges], dtype=torch.uint8)
    group.copy_first(to_do)  # before anyone has finished one
    missing = [each for each, wanted in zip(shards.ranges, to_do.tolist(), strict=True) if wanted]
    try:
        with _Progress(shards, job, group, progress) as bar:
            for low, high in missing[group.rank :: group.size]:
                x, info = sample(
                    model,
                    scheme,
                    high - low,
                    **_part(arguments, job, low, high),
                    snapshot="levels" if low == job.first else None,
                    snapshot_n=WAY,
                    checkpoint=shards.progress_path(low, high),
                    callback=bar.step if group.is_first else None,
                    progress=False,
                    return_info=True,
                )
                shards.write(low, high, x, info)
                bar.count()
        group.wait()
    except LostProcess as error:
        raise group.lost(f"sample: {error}; {_left(shards)}") from error
    if group.is_first and shards.missing():
        raise ValueError(f"sample: {shards.out} must be a folder that all processes share; {_left(shards)}")


def _left(shards) -> str:
    missing = shards.missing()
    count = sum(high - low for low, high in missing)
    return f"{count} samples ({spans(missing)}) are missing in {shards.out}; the same call draws exactly these"


def _part(arguments, job, low, high) -> dict:
    """The arguments of one shard: its first index, and its part of the images that are given for each sample."""
    part = {**arguments, "first": low}
    for name in ("init", "known", "mask"):
        value: Any = part.get(name)
        if getattr(value, "ndim", 0) == 4 and len(value) == job.plan.n:
            part[name] = value[low - job.first : high - job.first]
    return part


def _merge(shards, job, settings, facts, finish) -> dict:
    """samples.npz and settings.json of a run whose shards are all there; returns the latter."""
    parts = [shards.read(*each) for each in shards.ranges]
    write_images(shards.out / "samples.npz", [images for images, _ in parts], seed=job.seed, first=job.first)
    abouts = [about for _, about in parts]
    info = {
        "evaluations": job.plan.evaluations,
        "calls": {size: sum(about["calls"][size] for about in abouts) for size in abouts[0]["calls"]},
        **combined([(high - low, about) for (low, high), about in zip(shards.ranges, abouts, strict=True)]),
        "settings": settings | {"shard_size": shards.run["shard_size"]},
        **backend_of(job),
        "snapshots": [torch.from_numpy(snapshot) for snapshot in abouts[0]["snapshots"]],
        "snapshot_places": abouts[0]["snapshot_places"],
    }
    written = {"version": __version__, "model": facts, **info["settings"]} | {
        name: info[name] for name in ("evaluations", "seconds", "images_per_second", "backend", "diagnostics")
    }
    if finish is not None:
        written = finish(Images(shards.out / "samples.npz", "sample").head(SHOWN), info)
    with atomic_path(shards.out / "settings.json") as temporary:
        temporary.write_text(json.dumps(written, indent=2, default=str) + "\n")
    shards.remove()
    return written


class _Progress:
    """Progress in samples: the shards on disk, of all processes, and the part of its own that process 0 has drawn."""

    def __init__(self, shards, job, group: Group, shown):
        self.shards, self.partly, self.finished, self.looked = shards, 0.0, 0, -math.inf
        self.rows = max(1, sum(len(stage.rows) for stage in job.plan.stages))
        self.writes = group.is_first
        self.bar = _progress.Progress(
            job.plan.n,
            job.plan.scheme,
            "sample",
            initial=self._done(),
            shown=shown and self.writes,
            status=shards.out / _progress.NAME if self.writes else None,
        )

    def __enter__(self):
        self.bar.__enter__()
        return self

    def __exit__(self, *error):
        self.bar.__exit__(*error)

    def step(self, info) -> None:
        """The observer of `sample`: one update of some samples."""
        if info["kind"] != "upsample":
            self.partly += len(info["x"]) / self.rows
            self._show()

    def count(self) -> None:
        """Own samples are on the disk now."""
        self.partly, self.looked = 0.0, -math.inf
        self._show()

    def _show(self):
        if self.writes:
            self.bar.update(min(self._done() + int(self.partly), self.bar.total) - self.bar.n)

    def _done(self) -> int:
        """The samples in shards on the disk, looked up every few seconds."""
        if time.monotonic() - self.looked > LOOK:
            self.finished = self.shards.run["n"] - sum(high - low for low, high in self.shards.missing())
            self.looked = time.monotonic()
        return self.finished
