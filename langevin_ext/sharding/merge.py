"""`merge`: the samples of runs that unconnected machines have made with --first and -n, as those of one run."""

import json
from dataclasses import dataclass
from pathlib import Path

from .._files import atomic_path
from .arrays import Images, write_images
from .folder import SHARDS
from .settings import combined, difference, identity, spans

__all__ = ["merge"]

OWN = ("command", "n", "first", "batch_size", "shard_size", "device", "backend", "snapshot")  # not of all parts alike


@dataclass(frozen=True)
class Part:
    """One finished run."""

    folder: Path
    first: int
    n: int
    images: Images
    settings: dict


def merge(folders, out) -> dict:
    """Puts the samples of several finished runs into one, in the order of their global indices.

    Args:
        folders: those of `sample_shards` or of `langevin-ext sample`, in any order; each holds samples.npz and
            settings.json.
        out: folder, new or empty, for samples.npz and settings.json.

    Returns:
        What settings.json holds: the settings that all runs share, n, first, evaluations, seconds and diagnostics over
        all, and for each part its folder, first, n and device.

    Raises:
        FileNotFoundError: a folder has no samples.
        ValueError: a run is unfinished or damaged, the runs differ in a setting or in the model, they overlap or leave
            a gap, or `out` holds files; the folders and the samples are named.
    """
    parts = sorted((_part(folder) for folder in folders), key=lambda part: (part.first, part.n))
    if not parts:
        raise ValueError("merge: folders must be at least one, got none")
    _check_settings(parts)
    _check_ranges(parts)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"merge: out must be a new or empty folder, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    shared = {name: value for name, value in parts[0].settings.items() if name not in OWN}
    settings = shared | {
        "n": sum(part.n for part in parts),
        "first": parts[0].first,
        **combined([(part.n, part.settings) for part in parts]),
        "merged": [
            {"folder": str(part.folder), "first": part.first, "n": part.n, "device": part.settings.get("device")}
            for part in parts
        ],
    }
    images = [part.images for part in parts]
    write_images(out / "samples.npz", images, seed=settings["seed"], first=settings["first"])
    with atomic_path(out / "settings.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")
    return settings


def _part(folder) -> Part:
    folder = Path(folder)
    if (folder / SHARDS).exists() or (folder / "run.safetensors").exists():
        raise ValueError(f"merge: {folder} must be a finished run, got one in progress; finish it by its own command")
    images, path = Images(folder / "samples.npz"), folder / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"merge: file must exist, got {path}")
    try:
        settings = json.loads(path.read_text())
        part = Part(folder, int(settings["first"]), int(settings["n"]), images, settings)
        identity(settings, settings["model"])
        if not all(row.keys() >= {"mean", "variance"} for row in settings["diagnostics"]) or settings["seconds"] < 0:
            raise ValueError("diagnostics or seconds of another form")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"merge: {path} must hold the settings of a run, got {error!r}") from error
    if images.shape[0] != part.n:
        raise ValueError(f"merge: {images.path} must hold the {part.n} samples of its settings, got {images.shape[0]}")
    return part


def _check_settings(parts) -> None:
    first, *others = parts
    for part in others:
        pair = [identity(one.settings, one.settings["model"]) for one in (part, first)]
        if differs := difference(*pair):
            name, now, then = differs
            raise ValueError(
                f"merge: {name} must be equal in all folders, got {then!r:.80} in {first.folder} and {now!r:.80} in"
                f" {part.folder}"
            )


def _check_ranges(parts) -> None:
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            low, high = other.first, min(part.first + part.n, other.first + other.n)
            if low < high:
                raise ValueError(
                    f"merge: folders must not overlap, got samples {spans([(low, high)])} in both {part.folder} and"
                    f" {other.folder}"
                )
    gaps = [
        (part.first + part.n, after.first)
        for part, after in zip(parts, parts[1:], strict=False)
        if part.first + part.n < after.first
    ]
    if gaps:
        low, high = gaps[0]
        raise ValueError(
            f"merge: folders must leave no gap, got none with the samples {spans(gaps)}; draw them with --first {low}"
            f" -n {high - low}"
        )
