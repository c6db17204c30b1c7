"""Checks of what a user passes to `diagnose`, and the images drawn from it."""

import torch

from .. import noise
from ..training.trainer import TensorData

MOST_LEVELS = 10
SMALLEST = 8  # images or chains below which standard errors mean little


def count(name, value) -> int:
    """A number of images or chains."""
    if isinstance(value, bool) or not isinstance(value, int) or value < SMALLEST:
        raise ValueError(f"diagnose: argument {name} must be an integer of at least {SMALLEST}, got {value!r}")
    return value


def places(levels, count) -> list[int]:
    """The indices of the levels to look at, in the order of the sampler."""
    if levels is None:
        most = min(count, MOST_LEVELS)
        return sorted({round(i * (count - 1) / max(most - 1, 1)) for i in range(most)})
    wanted = list(levels) if isinstance(levels, list | tuple | range) else []
    if not wanted or not all(isinstance(i, int) and -count <= i < count for i in wanted):
        raise ValueError(f"diagnose: argument levels must be indices into the {count} sigmas, got {levels!r}")
    return sorted({i % count for i in wanted})


def images(name, data, shape, most, seed) -> torch.Tensor:
    """At most this many images of a set, (n, C, H, W) float32, drawn without replacement."""
    try:
        source = TensorData(data) if torch.is_tensor(data) else data
        fits = tuple(source.shape) == tuple(shape) and callable(source.batch)
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        got = f"{data.dtype} {tuple(data.shape)}" if torch.is_tensor(data) else type(data).__name__
        raise ValueError(
            f"diagnose: argument {name} must be a dataset or a float tensor of images {tuple(shape)}, got {got}"
        )
    if len(source) < SMALLEST:
        raise ValueError(f"diagnose: argument {name} must hold at least {SMALLEST} images, got {len(source)}")
    order = noise.words((len(source),), seed, stream=noise.RESAMPLE).argsort(stable=True)
    chosen = source.batch(order[:most], seed=seed, step=0).to(torch.float32)
    if not chosen.isfinite().all():
        raise ValueError(f"diagnose: argument {name} must be finite, got values that are not")
    return chosen


def provenance(model, data, held_out) -> list[str]:
    """Whether the sets are what they are given for, as far as their fingerprints say.

    Raises:
        ValueError: the held-out data are the data, or what the model was trained on.
    """
    trained = getattr(model, "data_fingerprint", None)
    ours, fresh = (getattr(one, "fingerprint", None) for one in (data, held_out))
    if held_out is not None and (held_out is data or fresh is not None and fresh in (ours, trained)):
        raise ValueError("diagnose: argument held_out must be data that the model was not trained on, got those it was")
    if trained is None or ours in (None, trained):
        return []
    return [
        "Data: not those that the model was trained on, by its fingerprint; the memorisation gap is not the model's."
    ]
