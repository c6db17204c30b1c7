"""The order in which training visits a dataset, as a pure function of (seed, epoch).

Training step t takes the positions [t batch_size, (t + 1) batch_size) of one endless sequence: the permutation of
epoch 0, then that of epoch 1, and so on. No position is dropped at the end of an epoch, and a run that resumes at step
t needs nothing but t to continue at the right image.
"""

from functools import lru_cache

import torch

from .. import noise


def order(epoch: int, n: int, seed: int) -> torch.Tensor:
    """The permutation of range(n) that one epoch follows: the stable argsort of n Philox words.

    order = argsort(words(n, seed, step=epoch, stream=ORDER))

    Args:
        epoch: integer in [0, 2^32).
        n: number of images, at least 1.
        seed: integer in [0, 2^64); with `epoch` and `n` all that the order depends on.

    Returns:
        int64 tensor (n,).

    Raises:
        ValueError: n is below 1, or epoch or seed is out of its range.
    """
    if n < 1:
        raise ValueError(f"order: n must be at least 1, got {n}")
    return torch.argsort(noise.words((n,), seed, step=epoch, stream=noise.ORDER), stable=True)


@lru_cache(maxsize=2)
def _cached_order(epoch: int, n: int, seed: int) -> torch.Tensor:
    return order(epoch, n, seed)


def indices_for(step: int, batch_size: int, n: int, seed: int) -> torch.Tensor:
    """The dataset indices of one global training step; epochs follow one another without a gap.

    position = step batch_size + i;  index = order(position div n)[position mod n]

    Args:
        step: global training step, from 0.
        batch_size: size of the global batch, at least 1; it may exceed n.
        n: number of images, at least 1.
        seed: integer in [0, 2^64); with `step`, `batch_size` and `n` all that the result depends on.

    Returns:
        int64 tensor (batch_size,).

    Raises:
        ValueError: step is negative, or batch_size or n is below 1.
    """
    if step < 0 or batch_size < 1 or n < 1:
        raise ValueError(
            f"indices_for: step must be >= 0, batch_size and n at least 1, got {step}, {batch_size} and {n}"
        )
    position, stop = step * batch_size, (step + 1) * batch_size
    pieces = []
    while position < stop:
        epoch, start = divmod(position, n)
        piece = _cached_order(epoch, n, seed)[start : start + stop - position]
        pieces.append(piece)
        position += len(piece)
    return torch.cat(pieces)
