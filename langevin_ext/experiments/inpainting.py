"""`inpainting`: several completions of half-occluded images (NCSN, Figure 6)."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import plots, sampling
from ..data import open_dataset
from ..metrics import ClassifierFeatures
from ..training import load
from .findings import Finding, Report, above, below, close

NAME = "inpainting"
TITLE = "Inpainting: known halves kept, unknown halves filled in different ways"
SOURCE = "NCSN, arXiv:1907.05600, Algorithm 2 and Figure 6"

EACH, EPS = 20, 1e-4
MEAN_OF = 1000  # training images whose mean fills the unknown half for comparison


class Case(NamedTuple):
    """A network that comes with the package, and the images to complete with it."""

    model: str
    data: str
    images: int  # at size 1
    least: int
    variants: int
    shown: int


CASES = (Case("digits", "digits", 32, 8, 4, 8), Case("glyphs32", "glyphs", 12, 4, 3, 8))


class Completed(NamedTuple):
    """What was given and what came of it.

    Attributes:
        originals: (n, C, H, W) in [0, 1].
        labels: (n,).
        mask: (1, H, W), True where known.
        raw: (n, variants, C, H, W), the samples.
        filled: the same with the known pixels pasted and all clipped to [0, 1].
        averaged: (n, C, H, W), the unknown half of the mean training image in the place of a completion.
        noise: the last noise level.
    """

    originals: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    raw: torch.Tensor
    filled: torch.Tensor
    averaged: torch.Tensor
    noise: float


def run(out=None, *, size=1.0, seed=0, progress=True) -> Report:
    """Figure 6 of NCSN on digits and glyphs: the left half is given, the right half completed several times.

    Args:
        out: folder for the figures, or None for none.
        size: share of 32 digits in four variants and 12 glyphs in three; below 1 of at least 8 and 4 in two.
        seed: of the sampling.
        progress: show bars.

    Returns:
        `Report`.
    """
    report = Report(NAME, TITLE, SOURCE, [])
    verdicts = []
    for case in tqdm(CASES, desc=NAME, unit="network", disable=not progress):
        done = complete(case, size, seed, progress)
        judged = judge(case.data, done)
        verdicts.append(judged)
        report.findings += _findings(case, done, judged)
        report.remarks.append(_remark(case, done, judged))
        if out is not None:
            report.figures.append(_figure(case, done, out / f"inpainting-{case.data}.png"))
    report.findings.append(_gain(verdicts))
    report.remarks.append(
        f"Networks that come with the package, {EACH} steps per level with eps={EPS:g} (100 with 2e-5 in the paper); "
        "the paper's images are of CelebA and CIFAR-10."
    )
    return report


def complete(case, size, seed, progress=False):
    """Completions of test images from their left half, by Algorithm 2, as `Completed`."""
    model = load(case.model)
    height, width = model.shape[1:]
    test = open_dataset(case.data, (height, width), split="test")
    train = open_dataset(case.data, (height, width), split="train", limit=MEAN_OF)
    n = max(case.least, round(case.images * size))
    variants = case.variants if size >= 1 else 2
    chosen = torch.arange(n) * len(test) // n
    originals = test.images[chosen].float() / 255
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, :, : width // 2] = True
    known = originals.repeat_interleave(variants, 0)
    settings = {"n_steps_each": EACH, "eps": EPS, "seed": seed, "known": known, "mask": mask}
    x = sampling.sample(model, "annealed", len(known), progress=progress, **settings)
    filled = torch.where(mask, known, x).clamp(0, 1)
    averaged = torch.where(mask, originals, (train.images.float() / 255).mean(0))
    shape = (n, variants, *originals.shape[1:])
    last = float(model.sigmas[-1])
    return Completed(originals, test.labels[chosen], mask, x.view(shape), filled.view(shape), averaged, last)


class Judged(NamedTuple):
    """What the classifier says, as shares of images whose class it finds.

    Attributes:
        classes: number of classes.
        originals, filled, averaged: shares for each image (n,), of its completions for `filled`.
    """

    classes: int
    originals: torch.Tensor
    filled: torch.Tensor
    averaged: torch.Tensor


def judge(data, done) -> Judged:
    """Whether the classifier that comes with the package finds the original's class."""
    classifier = ClassifierFeatures(data)

    def right(images, labels):
        return (classifier.probabilities(images).argmax(1) == labels).double()

    n, variants = done.filled.shape[:2]
    filled = right(done.filled.flatten(0, 1), done.labels.repeat_interleave(variants)).view(n, variants).mean(1)
    return Judged(
        classifier.model.classes, right(done.originals, done.labels), filled, right(done.averaged, done.labels)
    )


def _findings(case, done, judged) -> list[Finding]:
    known = done.mask.expand_as(done.raw)
    apart = (done.raw - done.originals[:, None])[known].double()
    pairs, error, others = distances(done)
    ratio = pairs / error.mean()
    n = len(pairs)
    return [
        close(
            f"{case.data}: deviation of the known pixels from those given",
            float(apart.square().mean().sqrt()),
            done.noise / math.sqrt(2 * len(apart)),
            done.noise,
        ),
        above(
            f"{case.data}: squared distance of two completions, over that to the original (posterior: 1)",
            float(ratio.mean()),
            0.5,
            paper="diverse",
            stderr=float((ratio - ratio.mean() * error / error.mean()).std() / math.sqrt(n)),
        ),
        below(
            f"{case.data}: squared distance of two completions, over that of different images'",
            float(pairs.mean() / others),
            0.95,
        ),
        above(
            f"{case.data}: completions with the original's class (chance {1 / judged.classes:.3f})",
            float(judged.filled.mean()),
            2 / judged.classes,
            stderr=float(judged.filled.std() / math.sqrt(n)),
        ),
    ]


def _gain(judged) -> Finding:
    """The share of completions with the original's class less that of images filled with the mean, over all images."""
    gain = torch.cat([one.filled - one.averaged for one in judged])
    what = "both: completions with the original's class, less images filled with the mean"
    return above(what, float(gain.mean()), 0.0, stderr=float(gain.std() / math.sqrt(len(gain))))


def distances(done):
    """Squared distances over the unknown half.

    Returns:
        Means between two completions of an image (n,), between a completion and the original (n,), and between
        completions of different images. For exact samples from the posterior, the first two have one mean.
    """
    unknown = ~done.mask.expand_as(done.originals[0])
    x, original = done.filled[:, :, unknown].double(), done.originals[:, unknown].double()
    pairs = 2 * x.var(1).sum(1)
    error = (x - original[:, None]).square().sum(2).mean(1)
    squared = torch.cdist(x.flatten(0, 1), x.flatten(0, 1)).square()
    n, variants = x.shape[:2]
    apart = ~torch.eye(n, dtype=torch.bool).repeat_interleave(variants, 0).repeat_interleave(variants, 1)
    return pairs, error, float(squared[apart].mean())


def _remark(case, done, judged):
    n, variants = done.filled.shape[:2]
    shares = [f"{float(part.mean()):.0%}" for part in (judged.originals, judged.filled, judged.averaged)]
    return (
        f"{case.data}: {variants} completions of each of {n} test images; the classifier finds the class of "
        f"{shares[0]} of the originals, {shares[1]} of the completions, {shares[2]} of the images filled with the mean."
    )


def _figure(case, done, path):
    """Occluded, completions, original: a row for each image, as in the paper."""
    n, variants = min(case.shown, len(done.originals)), done.filled.shape[1]
    occluded = torch.where(done.mask, done.originals, torch.tensor(0.5))
    columns = [occluded[:n], *done.filled[:n].unbind(1), done.originals[:n]]
    labels = ["given", *(f"{i}" for i in range(1, variants + 1)), "original"]
    return plots.trajectory(columns, path, labels, frames=(0,), smooth=max(done.originals.shape[2:]) <= 16)
