"""What `evaluate` can compute: a table of metrics, and the two sets whose features they share."""

import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from ..metrics import (
    ClassifierFeatures,
    InceptionFeatures,
    PixelFeatures,
    bootstrap,
    frechet_samples,
    inception_score,
    kid,
    memorisation,
    nearest,
    wasserstein,
)
from .common import parse_device
from .image_sets import ImageSet

FEATURES = {"inception": "Inception pool3", "classifier": "classifier", "pixels": "pixels"}  # and how their names end
BUILTIN = ("digits", "glyphs")  # datasets whose classifier comes with the package


@dataclass(frozen=True)
class Rows:
    """Features that were computed before, with what a distance must know of them."""

    name: str
    sha256: str | None

    def __call__(self, rows):
        return rows


class Evaluation:
    """The two sets, and their features, each computed once whatever number of metrics asks for them."""

    def __init__(self, samples: ImageSet, reference: ImageSet, options: dict[str, Any]):
        self.sets, self.options = (samples, reference), options
        self.features, self.rows = cache(self._features), cache(self._rows)

    def _features(self, kind):
        """The object that computes features of this kind."""
        device = parse_device(self.options["device"])
        if kind == "pixels":
            return PixelFeatures(clip=True)
        if kind == "inception":
            return InceptionFeatures(self.options["weights"], device)
        return ClassifierFeatures(self._classifier, device)

    @cached_property
    def _classifier(self):
        """Which classifier: as asked for, or that of the dataset."""
        kinds = [one.source.partition(":")[0] for one in self.sets]
        name = self.options["classifier"] or next((kind for kind in kinds if kind in BUILTIN), None)
        if name is None:
            raise ValueError(f"--classifier must be {', '.join(BUILTIN)} or a file for {self.sets[1].source}, got none")
        return name

    def kind(self, default):
        return self.options["features"] or default

    def images(self, which):
        """The images of the samples (0) or the reference (1)."""
        one = self.sets[which]
        if one.images is None:
            argument = ("SAMPLES", "REFERENCE")[which]
            raise ValueError(f"{argument} must be images for this metric, got statistics {one.source}")
        return one.images

    def _rows(self, which, kind):
        """(n, D) features of a set."""
        images = self.images(which)
        return self.features(kind)(images)

    def pair(self, kind):
        """The features of both sets, which must be images."""
        self.images(0), self.images(1)  # before a network is read for one of them
        return self.rows(0, kind), self.rows(1, kind)

    def side(self, which, kind):
        """What a Frechet distance takes: features, or statistics."""
        return self.sets[which].statistics or self.rows(which, kind)

    def named(self, kind):
        """The name of features of this kind, for rows; unknown where nothing had to be computed."""
        if all(one.statistics for one in self.sets):
            return None
        features = self.features(kind)
        return Rows(features.name, getattr(features, "sha256", None))

    def counts(self):
        return [one.statistics.count if one.images is None else len(one.images) for one in self.sets]


def frechet(evaluation, kind):
    """A Frechet distance, with its bootstrap deviation where it is asked for."""
    for one in evaluation.sets:
        said = one.statistics and one.statistics.features
        if said and not said.endswith(FEATURES[kind]):
            raise ValueError(f"--metric must be one of the features of {one.source}, {said}, got one of {kind}")
    a, b, named = evaluation.side(0, kind), evaluation.side(1, kind), evaluation.named(kind)
    distance = frechet_samples(a, b, named)
    facts = {"value": float(distance), "counts": list(distance.counts), "features": distance.features}
    replicates = evaluation.options["bootstrap"]
    if not replicates:
        return str(distance), facts
    if not isinstance(a, torch.Tensor):
        raise ValueError(f"--bootstrap must be 0 where SAMPLES are statistics, got {replicates}")
    which = "both" if isinstance(b, torch.Tensor) else "a"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said above
        spread = bootstrap(
            lambda x, y: frechet_samples(x, y, named), a, b, replicates, evaluation.options["seed"], which=which
        )
    facts |= {"deviation": spread.deviation, "bootstrap": replicates, "resampled": which}
    return f"{distance}, bootstrap deviation {spread.deviation:.3g}", facts


def kernel_distance(evaluation, kind):
    kind = evaluation.kind(kind)
    a, b = evaluation.pair(kind)
    score = kid(a, b, seed=evaluation.options["seed"])
    text = f"{score.mean:.6g} +- {score.deviation:.3g} over 100 subsets of {min(1000, len(a), len(b))}"
    return counted(evaluation, kind, text, value=score.mean, deviation=score.deviation)


def transport(evaluation, kind):
    kind = evaluation.kind(kind)
    value = wasserstein(*evaluation.pair(kind))
    return counted(evaluation, kind, f"{value:.6g}", value=value)


def score(evaluation, kind):
    """The inception score of the samples, by the classes of Inception or of the project's classifier."""
    kind = evaluation.kind(kind)
    if kind == "pixels":
        raise ValueError("--features must be inception or classifier for inception-score, got pixels")
    n = len(evaluation.images(0))
    features = evaluation.features(kind)
    of_rows = kind == "inception"  # its classes follow from the features; the classifier starts from the images
    found = inception_score(features.probabilities(evaluation.rows(0, kind) if of_rows else evaluation.images(0)))
    text = f"{found.mean:.6g} +- {found.deviation:.3g} over 10 parts ({features.name}, {n} samples)"
    return text, {"value": found.mean, "deviation": found.deviation, "counts": [n], "features": features.name}


def neighbours(evaluation, kind):
    """Distances from each sample to its nearest and second nearest image of the reference."""
    kind = evaluation.kind(kind)
    distances, indices = nearest(*evaluation.pair(kind), 2)
    first, second = distances.median(0).values.tolist()
    text = f"median distance {first:.6g}, to the second nearest {second:.6g}"
    found = {"nearest": indices[:, 0].tolist(), "distances": distances[:, 0].tolist()}
    return counted(evaluation, kind, text, value=first, second=second, **found)


def copies(evaluation, kind):
    """Samples against the training part of the reference, beside the same for its test part."""
    kind, reference = evaluation.kind(kind), evaluation.sets[1]
    if reference.part is None:
        raise ValueError(f"REFERENCE must be a dataset with a training and a test part, got {reference.source}")
    parts = [reference.part(which) for which in ("train", "test")]
    found = memorisation(evaluation.images(0), *parts, evaluation.features(kind))
    if evaluation.options["picture"]:
        found.picture(evaluation.options["picture"])
    facts = {
        "counts": list(found.counts),
        "features": found.features,
        "median_ratios": list(found.medians),
        "copies": list(found.copies),
        "closer": found.closer,
        "closer_error": found.closer_error,
    }
    return str(found).partition(" in ")[2], facts


def counted(evaluation, kind, text, **facts):
    """The line and the record of a metric, with features and counts."""
    name, counts = evaluation.features(kind).name, evaluation.counts()
    return f"{text} ({name}, {counts[0]} against {counts[1]} samples)", facts | {"features": name, "counts": counts}


# name -> (function of an Evaluation and features, the features unless --features says others)
METRICS = {
    "fid": (frechet, "inception"),
    "frechet-pixels": (frechet, "pixels"),
    "frechet-classifier": (frechet, "classifier"),
    "kid": (kernel_distance, "inception"),
    "inception-score": (score, "inception"),
    "wasserstein": (transport, "pixels"),
    "nearest": (neighbours, "pixels"),
    "memorisation": (copies, "pixels"),
}
FRECHET = [name for name, (function, _) in METRICS.items() if function is frechet]
