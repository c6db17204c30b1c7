"""Whether samples are copies of training images: nearest neighbours, and the same for images held out.

    d1(x), d2(x) = distances from x to its nearest and its second nearest training image

A copy has a small ratio d1/d2, but what is small depends on the data; therefore samples are always compared with
held-out images, for which memory is impossible.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from .. import plots
from .features import unit

__all__ = ["Memorisation", "memorisation", "nearest"]

SPARE = 8  # candidates beyond k that are measured exactly
COPY = 1 / 3  # a sample with d1/d2 below it counts as a copy
SHOWN = 12
NAME = "Memorisation.picture"


def nearest(samples, reference, k=2, features=None, *, chunk=512, progress=True) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest images of a reference, by Euclidean distance in pixels or features.

    All pairs are compared by the float64 expansion |x|^2 + |y|^2 - 2 x.y, and those that its rounding leaves possible
    once more by the sum of (x - y)^2: the distances carry no cancellation, and a copy has distance 0.

    Args:
        samples: (n, C, H, W) images, float in [0, 1] or uint8, or (n, D) features.
        reference: (N, C, H, W) or (N, D) like the samples, N >= k.
        k: number of neighbours, at least 1.
        features: images -> (n, D), such as `ClassifierFeatures`; the pixels as they are by default.
        chunk: images of each set that are compared at a time; changes nothing but memory and speed.
        progress: show a bar where the run is long and the output a terminal.

    Returns:
        distances (n, k) float64, ascending, and indices (n, k) int64 into the reference; at equal distances the lower
        index comes first. Both on the device of the samples.

    Raises:
        TypeError, ValueError: shapes or sizes do not fit, or a value is not finite.
    """
    x = _rows(samples, features, "nearest: samples")
    y = _rows(reference, features, "nearest: reference").to(x.device)
    for name, value, high in (("k", k, len(y)), ("chunk", chunk, math.inf)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise ValueError(f"nearest: {name} must be an integer in [1, {high}], got {value!r}")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"nearest: samples and reference must be of one size, got {x.shape[1]} and {y.shape[1]} values"
        )
    found = []
    with tqdm(total=len(x), desc="nearest", unit="image", disable=None if progress else True, leave=False) as bar:
        for part in x.split(chunk):
            found.append(_nearest_rows(part.double(), y, k, chunk))
            bar.update(len(part))
    return torch.cat([distances for distances, _ in found]), torch.cat([indices for _, indices in found])


def _rows(images, features, what):
    """(n, D) rows to compare, 8-bit values as v/255; `what` names function and argument."""
    if not torch.is_tensor(images) or images.dim() not in (2, 4) or 0 in images.shape:
        got = tuple(images.shape) if torch.is_tensor(images) else type(images).__name__
        raise ValueError(f"{what} must be a tensor (n, C, H, W) or (n, D), got {got}")
    rows = (unit(images, what) if features is None else features(images)).flatten(1)
    bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"{what} must be finite, got {len(bad)} of {len(rows)} that are not: {bad[:8]}")
    return rows


def _nearest_rows(x, y, k, chunk):
    """Distances and indices of the k nearest rows of y, which is gone through in order."""
    distances, indices = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    for number, block in enumerate(y.split(chunk)):
        more, places = _nearest_block(x, block.double(), min(k, len(block)))
        # a stable sort leaves the earlier of equals, which have the lower indices, in front
        distances, order = torch.cat([distances, more], 1).sort(dim=1, stable=True)
        indices = torch.cat([indices, places + number * chunk], 1).gather(1, order[:, :k])
        distances = distances[:, :k]
    return distances, indices


def _nearest_block(x, y, k):
    """Distances and indices of the k nearest rows of y for each row of x, ties by the lower index."""
    squares = x.square().sum(1, keepdim=True), y.square().sum(1)
    expanded = squares[0] + squares[1] - 2 * x @ y.T
    values, candidates = expanded.topk(min(k + SPARE, len(y)), largest=False)
    candidates = candidates.sort(dim=1).values
    distances, order = _exact(x[:, None], y[candidates])[:, 0].sort(dim=1, stable=True)
    distances, indices = distances[:, :k], candidates.gather(1, order[:, :k])
    if candidates.shape[1] == len(y):
        return distances, indices
    # |error of the expansion| <= about D eps (|x| + |y|)^2; whoever was left out is at least that close to the last
    slack = 4 * (x.shape[1] + 8) * torch.finfo(x.dtype).eps * (squares[0][:, 0] + squares[1].max())
    unsure = (distances[:, -1].square() >= values[:, -1] - slack).nonzero().flatten()
    for i in unsure.tolist():  # more than SPARE rivals within rounding: many equal images
        every, order = _exact(x[i : i + 1], y)[0].sort(stable=True)
        distances[i], indices[i] = every[:k], order[:k]
    return distances, indices


def _exact(x, y):
    """Distances (..., n, m) of rows (..., n, D) and (..., m, D), each from the sum of its squared differences."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class Memorisation:
    """What `memorisation` found; str() says it in five lines, `picture` shows the most suspicious samples.

    Attributes:
        distances, indices: (n, 2) of the samples to their nearest and second nearest training image.
        held_out_distances: (m, 2), the same for the held-out images.
        features: name of the space they were measured in.
        counts: numbers of samples, training images and held-out images.
    """

    distances: torch.Tensor
    indices: torch.Tensor
    held_out_distances: torch.Tensor
    features: str
    counts: tuple[int, int, int]
    images: tuple[torch.Tensor, torch.Tensor] = field(repr=False, compare=False)  # samples and training images

    @property
    def ratios(self) -> torch.Tensor:
        """d1/d2 of the samples (n,): 1 far from all data, 0 for a copy (also of an image that is there twice)."""
        return _ratios(self.distances)

    @property
    def held_out_ratios(self) -> torch.Tensor:
        """The same for the held-out images (m,)."""
        return _ratios(self.held_out_distances)

    @property
    def medians(self) -> tuple[float, float]:
        """Median of d1/d2 for samples and for held-out images."""
        return _median(self.ratios), _median(self.held_out_ratios)

    @property
    def copies(self) -> tuple[float, float]:
        """Share with d1/d2 < 1/3 among samples and among held-out images.

        The definition of a memorised sample of Yoon, Choi, Kwon & Ryu 2023, "Diffusion Probabilistic Models Generalize
        when They Fail to Memorize".
        """
        return (self.ratios < COPY).double().mean().item(), (self.held_out_ratios < COPY).double().mean().item()

    @property
    def closer(self) -> float:
        """P(d1(sample) < d1(held-out image)), ties counting half: about 1/2 without memory, 1 for copies.

        The Mann-Whitney statistic over n m with which Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675, section 3)
        test for data-copying, without their division of space into cells; below 1/2 samples are far from all data.
        """
        ours, theirs = self.distances[:, 0].contiguous(), self.held_out_distances[:, 0].sort().values
        below = torch.searchsorted(theirs, ours)
        above = len(theirs) - torch.searchsorted(theirs, ours, right=True)
        equal = len(theirs) - below - above
        return (above + 0.5 * equal).double().mean().item() / len(theirs)

    @property
    def closer_error(self) -> float:
        """Standard deviation of `closer` where samples and held-out images have one law: sqrt((n+m+1)/(12 n m))."""
        n, _, m = self.counts
        return math.sqrt((n + m + 1) / (12 * n * m))

    def __str__(self):
        n, size, m = self.counts
        (median, expected), (share, usual) = self.medians, self.copies
        return "\n".join(
            [
                f"memorisation in {self.features}: {n} samples and {m} held-out images against {size} training images",
                f"  median nearest distance    {_median(self.distances[:, 0]):.4g}"
                f"   held out {_median(self.held_out_distances[:, 0]):.4g}",
                f"  median of nearest/second   {median:.4f}   held out {expected:.4f}   (0 for copies)",
                f"  share with ratio below 1/3 {share:.4f}   held out {usual:.4f}",
                f"  closer than held out       {self.closer:.4f}   without memory 0.5 +- {self.closer_error:.4f}",
            ]
        )

    def picture(self, path, count=SHOWN) -> Path:
        """Draws the samples with the smallest d1/d2, a column each: sample, nearest, second nearest training image.

        Over each column stand d1/d2 and d1; the smallest ratio is on the left.

        Args:
            path: PNG to write; its folder must exist.
            count: number of samples.

        Returns:
            The path.

        Raises:
            ValueError: count is below 1, or the sets hold no images (N, C, H, W) of one size, C 1 or 3.
        """
        samples, train = self.images
        if samples.dim() != 4 or samples.shape[1:] != train.shape[1:]:
            shapes = tuple(samples.shape), tuple(train.shape)
            raise ValueError(f"{NAME}: samples and train must be images of one size, got {shapes}")
        if count < 1:
            raise ValueError(f"{NAME}: count must be at least 1, got {count}")
        ratios, order = self.ratios.sort(stable=True)
        chosen = order[:count].tolist()
        columns = []
        for i in chosen:  # as floats on one device, for either may be 8-bit
            trio = [samples[i], *(train[j] for j in self.indices[i].tolist())]
            columns.append(torch.stack([unit(image, NAME).float().cpu() for image in trio]))
        labels = [f"{ratios[i]:.2f}, {self.distances[j, 0]:.3g}" for i, j in enumerate(chosen)]
        facts = {"rows": ["sample", "nearest training image", "second nearest"], "columns": "ratio, nearest distance"}
        smooth = max(samples.shape[2:]) < 16
        return plots.trajectory(columns, path, labels, smooth=smooth, metadata={**facts, "samples": chosen})


def memorisation(samples, train, held_out, features=None, *, chunk=512, progress=True) -> Memorisation:
    """Compares the distances of samples to the training images with those of held-out images to them.

    Args:
        samples: (n, C, H, W) images, float in [0, 1] or uint8, or (n, D) features.
        train: the images that the model was trained on, N >= 2 of them, in the same form.
        held_out: images of the same law that it was not trained on.
        features, chunk, progress: as for `nearest`.

    Returns:
        `Memorisation`: medians of d1/d2, the share of ratios below 1/3, and the probability that a sample is closer to
        its nearest training image than a held-out image is; print it, and call its `picture(path)`.

    Raises:
        TypeError, ValueError: as `nearest`.
    """
    sets = {"samples": samples, "train": train, "held_out": held_out}
    rows = {name: _rows(images, features, f"memorisation: {name}") for name, images in sets.items()}
    shown = {"chunk": chunk, "progress": progress}
    distances, indices = nearest(rows["samples"], rows["train"], 2, **shown)
    held_out_distances, _ = nearest(rows["held_out"], rows["train"], 2, **shown)
    name = "pixels" if features is None else getattr(features, "name", type(features).__name__)
    counts = len(samples), len(train), len(held_out)
    return Memorisation(distances, indices, held_out_distances, name, counts, (samples, train))


def _ratios(distances):
    first, second = distances.unbind(1)
    return torch.where(first == 0, 0.0, first / second)


def _median(values):
    """The middle value, or the mean of the two in the middle."""
    return values.quantile(0.5).item()
