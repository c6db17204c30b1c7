"""Choosing among the checkpoints of a run, as the papers do: by the Frechet distance of 1,000 samples.

    selection.jsonl     a line for each network that was measured: step, distance, counts, features, seconds, settings
    best.safetensors    the averaged network with the lowest distance so far, the earliest of equals
    selection.png       the distance over the steps, the best marked

A training run writes these into its folder every `select_every` steps; `select_checkpoint` does the same afterwards.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from .. import sampling
from ..metrics.frechet import PixelFeatures, frechet_samples, measured
from ..metrics.statistics import Statistics
from ..samplers.record import fingerprint
from . import checkpoint, state
from .selection_log import LOG, best_line, describe_line, read_selection, write_selection
from .trainer import integer

__all__ = ["Selection", "select_checkpoint"]

BEST = "best.safetensors"


@dataclass(frozen=True)
class Selection:
    """How networks are measured: by annealed Langevin samples, as NCSN (arXiv:1907.05600) and the multi-scale paper
    (arXiv:2006.11166) choose their checkpoints.

    Args:
        n: number of samples; distances with another number are not comparable.
        reference: `ImageDataset`, images (N, C, H, W) or `Statistics` in the same features; by default the training
            data.
        features: images -> (n, D), with a `name`, such as `ClassifierFeatures`; clipped pixels by default.
        n_steps_each, eps, denoise, seed, batch_size: as for `langevin_ext.sample`; equal for all networks, and so is
            the noise.

    Raises:
        TypeError, ValueError: n is below 2, or features cannot be called.
    """

    n: int = 1000
    reference: object = None
    features: Callable | None = None
    n_steps_each: int = 100
    eps: float | None = None
    denoise: bool = True
    seed: int = 0
    batch_size: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "n", integer("n", self.n, 2, function="Selection"))  # the dataclass is frozen
        if self.features is not None and not callable(self.features):
            raise TypeError(f"Selection: features must be callable, got {type(self.features).__name__}")

    def sampling(self) -> dict:
        """The arguments of `sample`."""
        names = ("n", "n_steps_each", "eps", "denoise", "seed", "batch_size")
        return {name: getattr(self, name) for name in names}


def make_selection(select, name) -> Selection:
    """A `Selection` from one, a dictionary of its arguments, or None."""
    if isinstance(select, Selection):
        return select
    try:
        return Selection(**(select or {}))
    except TypeError as error:
        raise TypeError(f"{name}: select must be a Selection or a dictionary of its arguments: {error}") from error


class Judge:
    """Measures networks: the samples of each, drawn with the same noise, against one reference.

    Args:
        select: `Selection`.
        data: the reference where `select` has none.
        name: the public function, for messages.
    """

    def __init__(self, select, data, name):
        self.select = select
        self.features = PixelFeatures(clip=True) if select.features is None else select.features
        reference = data if select.reference is None else select.reference
        if isinstance(reference, Statistics):
            self.reference, identity = reference, [reference.mean, reference.covariance]
        else:
            # a dataset holds images, the wrapper that training puts around a tensor holds that
            identity = getattr(reference, "images", getattr(reference, "tensor", reference))
            if not torch.is_tensor(identity) or identity.dim() != 4:
                got = f"{reference!r:.80}"
                raise ValueError(f"{name}: reference must be a dataset, images (N, C, H, W) or Statistics, got {got}")
            self.reference = measured(identity, self.features)
        self.settings = select.sampling() | {
            "features": getattr(self.features, "name", type(self.features).__name__),
            "reference": fingerprint(identity),
        }

    def __call__(self, model, check=None, progress=False) -> dict:
        """A line of the table; where the samples are not finite, distance is None and failure says why.

        Args:
            model: the network.
            check: called after each update of the samples; may raise to stop.
            progress: show the bar of the sampling.
        """
        began, callback = time.monotonic(), None if check is None else lambda _: check()
        line = {
            "distance": None,
            "counts": [self.select.n, self.reference.count],
            "features": self.settings["features"],
        }
        try:
            x = sampling.sample(model, progress=progress, callback=callback, **self.select.sampling())
            line["distance"] = float(frechet_samples(x, self.reference, self.features))
        except FloatingPointError as error:
            line["failure"] = str(error)
        return {**line, "seconds": round(time.monotonic() - began, 3), "settings": self.settings}

    def compare(self, lines, path, name) -> None:
        """Raises ValueError where an earlier line was measured in another way."""
        for line in lines:
            for key, value in self.settings.items():
                if line["settings"].get(key) != value:
                    raise ValueError(
                        f"{name}: {key} of select must be that of {path}, {line['settings'].get(key)!r}, got {value!r}"
                    )


class Selector:
    """The selection within a training run: measures its averaged network every `every` steps.

    Each evaluation follows a checkpoint of the run at the same step, so that a run that is stopped during one repeats
    it, and the table never knows more than the run.
    """

    def __init__(self, select, every, trainer, progress):
        self.every = integer("select_every", every)
        select = make_selection(select, "train")
        sampling.plan(trainer.model, **select.sampling())  # refuses what cannot be sampled before anything is trained
        self.judge = Judge(select, trainer.data, "train")
        self.trainer, self.progress, self.lines = trainer, progress, []

    def open(self, folder) -> None:
        """Takes over the table of the run in `folder`."""
        self.folder = Path(folder)
        path = self.folder / LOG
        self.lines = read_selection(path) if path.exists() else []
        self.judge.compare(self.lines, path, "train")
        if self.lines and self.lines[-1]["step"] > self.trainer.step:
            raise ValueError(
                f"train: {path} must not be ahead of its run, which is at step {self.trainer.step}, got step"
                f" {self.lines[-1]['step']}; move it away with {BEST}"
            )

    @property
    def due(self) -> bool:
        """Whether the network of the current step is to be measured and is not yet in the table."""
        step = self.trainer.step
        return step > 0 and step % self.every == 0 and not (self.lines and self.lines[-1]["step"] == step)

    def look(self, check) -> None:
        """Measures the averaged network; keeps it if it is the best so far, then writes the table and its curve."""
        model = self.trainer.averaged()
        line = {"step": self.trainer.step, **self.judge(model, check, self.progress)}
        lines = [*self.lines, line]
        if best_line(lines) is line:
            state.publish(self.folder / BEST, self.trainer, model, selection=line)
        write_selection(self.folder, lines)
        self.lines = lines
        if self.progress:
            tqdm.write(f"train: {describe_line(line)}{', the best so far' if best_line(lines) is line else ''}")


def select_checkpoint(paths, data, select=None, *, out=None, device=None, build=None, progress=True):
    """Measures checkpoints one after the other and names the best: the selection of `train`, afterwards.

    Args:
        paths: checkpoints of score networks, as `langevin_ext.load` takes them; their averaged weights are measured.
        data: `ImageDataset`, images (N, C, H, W) or `Statistics`: the reference where `select` has none.
        select: `Selection`, or a dictionary of its arguments.
        out: folder for selection.jsonl and selection.png, new or that of an earlier call: what it has measured (the
            same weights in the same way) is not measured again.
        device, build: as for `langevin_ext.load`.
        progress: show bars.

    Returns:
        (path, lines): the path of the network with the lowest distance, the first of equals, and for each path a
        dictionary of path, sha256, step (None if unknown), distance, counts, features, seconds and settings.

    Raises:
        TypeError, ValueError: an argument is wrong, a checkpoint unusable, or no network has finite samples.
        FileNotFoundError: there is no such checkpoint.
    """
    paths = list(paths)
    if not paths:
        raise ValueError("select_checkpoint: paths must hold at least one checkpoint, got none")
    judge, known, lines = Judge(make_selection(select, "select_checkpoint"), data, "select_checkpoint"), {}, []
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        earlier = read_selection(out) if (Path(out) / LOG).exists() else []
        judge.compare(earlier, Path(out) / LOG, "select_checkpoint")
        known = {line["sha256"]: line for line in earlier}
    for path in paths:
        facts = checkpoint.describe(path)
        step = facts["metadata"].get("steps", facts["metadata"].get("step"))
        line = known.get(facts["sha256"]) or judge(checkpoint.load(path, device, build=build), progress=progress)
        lines.append({**line, "path": str(path), "sha256": facts["sha256"], "step": step})
        known[facts["sha256"]] = lines[-1]
        if out is not None:
            write_selection(out, list(known.values()))
        if progress:
            tqdm.write(f"select_checkpoint: {path}: {describe_line(lines[-1])}")
    best = best_line(lines)
    if best is None:
        raise ValueError(f"select_checkpoint: paths must hold a network with finite samples, got {lines[0]['failure']}")
    return Path(best["path"]), lines
