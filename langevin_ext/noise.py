"""Noise as a pure function of (seed, stream, step, sample, element).

Every random number of the package is one lane of the counter-based generator Philox4x32-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"):

    key     = (seed mod 2^32, seed div 2^32)
    counter = (element div 4, step, sample, stream)         lane = element mod 4

`element` is the flat index inside one sample, `sample` the global index of the sample and `step` the position in the
run, so that no number depends on the batch size, the memory format, the number of threads or processes, the device,
or on what was drawn before. `stream` keeps the uses apart.
"""

import torch

from . import ops

LANGEVIN, INIT, INPAINT, DSM, SSM, CLD_X, CLD_V, LABELS, DEQUANTISE, FLIP, ORDER, RENOISE, GLYPHS, DATA = range(14)
RESAMPLE, MEASURE = 14, 15

__all__ = ["words", "uniform", "normal"]


def words(shape, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """The raw 32-bit Philox words.

    Args:
        shape: (samples, ...); sample i of the result has the global index `first + i`.
        seed: integer in [0, 2^64).
        step, stream: integers in [0, 2^32).
        first: integer with 0 <= first and first + shape[0] <= 2^32.
        device: device of the result, the CPU by default.

    Returns:
        int64 tensor of `shape` with values in [0, 2^32).

    Raises:
        ValueError: an argument is out of its range.
    """
    return ops.philox_words(tuple(shape), seed=seed, step=step, first=first, stream=stream, device=device)


def normal(shape, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Standard normals by Box-Muller from pairs of words; arguments as for `words`.

    Returns:
        float32 tensor of `shape`, |z| < 6.77, bit-equal on every CPU, on CUDA and in plain torch.
    """
    return ops.philox_normal(tuple(shape), seed=seed, step=step, first=first, stream=stream, device=device)


def uniform(shape, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Uniform numbers (word div 2^9 + 1/2) 2^-23, exact in float32; arguments as for `words`.

    Returns:
        float32 tensor of `shape` with values in [2^-24, 1 - 2^-24], symmetric about 1/2.
    """
    word = words(shape, seed, step, first, stream, device)
    return ((word >> 9).to(torch.float32) + 0.5).mul_(2.0**-23)
