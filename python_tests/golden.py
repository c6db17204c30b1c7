"""Deterministic weights and inputs of the golden files: a hash of the index, no library's random generator.

The files in `data/` hold what the released networks (ermongroup/ncsnv2, MIT licence) computed in float64 from these
weights and inputs; `golden_ncsn.npz` for NCSN, `golden_ncsnv2.npz` for NCSNv2.
"""

import numpy as np
import torch

CASES = {  # name: (class, shape, ngf, sigmas (first, last, number), batch)
    "tiny": ("NCSN", (3, 8, 8), 8, (1.0, 0.01, 10), 2),
    "odd_width": ("NCSN", (2, 16, 16), 9, (1.0, 0.05, 4), 2),
    "mnist": ("NCSN", (1, 28, 28), 16, (1.0, 0.01, 10), 1),
    "cifar": ("NCSN", (3, 32, 32), 8, (1.0, 0.01, 10), 1),
    "wide_image": ("NCSN", (3, 12, 20), 8, (1.0, 0.01, 10), 1),
    "v2_tiny": ("NCSNv2", (3, 8, 8), 8, (50.0, 0.01, 12), 2),
    "v2_mnist": ("NCSNv2", (1, 28, 28), 8, (50.0, 0.01, 12), 1),
}
GRADIENT_CASES = ("tiny", "v2_tiny")


def hashed(shape, key):
    """Numbers in [-1, 1), float64 with 24 bits, a pure function of (key, flat index): the SplitMix64 finaliser."""
    with np.errstate(over="ignore"):
        z = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(key) * np.uint64(1 << 32)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0).reshape(shape)


def fill(module):
    """Sets every parameter, by its place among the sorted names: convolutions of unit gain, scales near 1, shifts."""
    with torch.no_grad():
        for index, (name, parameter) in enumerate(sorted(module.named_parameters())):
            values = hashed(tuple(parameter.shape), index + 1)
            if parameter.dim() == 4:
                values *= np.sqrt(3.0 / np.prod(parameter.shape[1:]))
            else:
                values *= 0.3
            if name.endswith("embed.weight"):
                values[:, : 2 * values.shape[1] // 3] += 1.0
            elif name.endswith(("alpha", "gamma")):
                values += 1.0
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return module


def inputs(shape, batch, levels):
    """x (B, C, H, W) float64, exact in float32, level (B,), and the weights of the scalar whose gradient is taken."""
    x = torch.from_numpy(0.5 + 0.75 * hashed((batch, *shape), 1001))
    level = torch.arange(batch) * 7 % levels
    return x, level, torch.from_numpy(hashed((batch, *shape), 1002))
