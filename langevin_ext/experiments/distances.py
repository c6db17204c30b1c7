"""Distances of the samples of a table to the data at their resolution."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from .._files import atomic_path
from ..data import ImageDataset
from ..metrics import PixelFeatures, Statistics, bootstrap, frechet_samples
from ..metrics.frechet import measured
from ..samplers.record import fingerprint
from ..scores import Gaussian
from ..tuning.fit import fit
from ..tuning.law import evolve
from ..tuning.modes import DENSE


@dataclass(frozen=True)
class Reference:
    """What samples of one resolution are compared with, and how it is called."""

    statistics: Statistics
    label: str


def references(given, models, features) -> list[Reference]:
    """The reference of each model.

    Args:
        given: one for each model: an `ImageDataset`, images (n, C, H, W) or `Statistics`; None for the exact law of
            Gaussian data.
        models: coarsest first.
        features: images -> (n, D), with a `name`.

    Raises:
        TypeError, ValueError: there are not as many as models, or one does not fit its model or the features.
    """
    if given is None:
        return _laws(models, features)
    if not isinstance(given, list | tuple) or len(given) != len(models):
        raise ValueError(
            f"table: argument reference must be a list of {len(models)}, one for each model, got "
            + (f"{len(given)}" if isinstance(given, list | tuple) else type(given).__name__)
        )
    return [_reference(one, tuple(model.shape), features) for one, model in zip(given, models, strict=True)]


def _reference(one, shape, features) -> Reference:
    if isinstance(one, Statistics):
        if one.features not in (None, features.name):
            raise ValueError(f"table: argument reference must be of features {features.name}, got {one.features}")
        return Reference(one, f"statistics of {one.count or 'an unknown number of'} images")
    images = one.images if isinstance(one, ImageDataset) else one
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"table: argument reference must hold datasets, images or statistics, got {type(one).__name__}")
    if tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"table: argument reference must hold images of {shape}, those of the model, got {tuple(images.shape[1:])}"
        )
    name = f"{one.name}, {one.which}: " if isinstance(one, ImageDataset) else ""
    return Reference(measured(images, features), f"{name}{len(images)} images of {_size(images[0])}")


def _size(one) -> str:
    return "x".join(map(str, one.shape))


def is_exact(models) -> bool:
    """Whether the models are exact scores of Gaussian data small enough for their law."""
    return all(isinstance(model, Gaussian) and torch.Size(model.shape).numel() <= DENSE for model in models)


def _laws(models, features) -> list[Reference]:
    if not is_exact(models) or not _plain(features):
        raise ValueError(
            "table: argument reference must be given, unless the models are exact scores of Gaussian data of at most "
            f"{DENSE} values an image and the features are pixels, got None"
        )
    data = [fit(model, [model.shape])[0] for model in models]
    return [
        Reference(
            Statistics(one.synthesise(one.mean), one.covariance(), {"features": features.name}),
            f"the exact law of {_size(one)}",
        )
        for one in data
    ]


def _plain(features):
    return isinstance(features, PixelFeatures) and not features.clip


def exact_distances(jobs, features) -> list[float | None]:
    """Distance of each scheme's exact law to the data's, None where there is none."""
    models = jobs[0].models
    if not is_exact(models) or not _plain(features):
        return [None] * len(jobs)
    data = [fit(model, [model.shape])[0] for model in models]
    return [
        evolve(job.plan.stages, data, init=job.init, upsample=job.upsample).frechet()
        if isinstance(job.upsample, str)
        else None
        for job in jobs
    ]


class Distances:
    """Distances with their bootstrap deviations, kept in a file so that none is computed twice.

    Args:
        path: JSON file.
        features: images -> (n, D).
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """

    def __init__(self, path, features, replicates, seed):
        self.path, self.features, self.replicates, self.seed = Path(path), features, replicates, seed
        self.known = json.loads(self.path.read_text()) if self.path.exists() else {}

    def measure(self, samples, reference) -> tuple[float, float]:
        """The distance of samples, and the standard deviation of its replicates, samples drawn with replacement.

        Args:
            samples: (n, C, H, W).
            reference: `Reference`.
        """
        bare = Statistics(
            reference.statistics.mean, reference.statistics.covariance, {"count": reference.statistics.count}
        )
        setting = [self.features.name, getattr(self.features, "sha256", None), self.replicates, self.seed]
        key = fingerprint([samples, bare.mean, bare.covariance, setting])
        if key not in self.known:
            found = bootstrap(frechet_samples, self.features(samples), bare, self.replicates, self.seed, which="a")
            self.known[key] = [found.value, found.deviation]
            with atomic_path(self.path) as temporary:
                temporary.write_text(json.dumps(self.known))
        value, deviation = self.known[key]
        return value, deviation
