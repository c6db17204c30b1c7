"""In which numbers an engine computes."""

import torch

from .. import noise

PRECISIONS = ("auto", "fp32", "tf32", "fp16", "bf16", "int16")
ON_CPU, ON_GPU = ("auto", "fp32", "bf16", "int16"), ("auto", "fp32", "tf32", "fp16", "bf16")
DTYPES = {  # of the activations between the first and the last convolution
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int16": torch.float32,
}
TRIED = 8  # samples for `finite`
COMPARED = 3  # for `difference`


def finite(fast) -> bool:
    """Whether the scores of a few starting points, at levels from the first to the last, are finite."""
    return bool(torch.isfinite(fast(*_points(fast, TRIED))).all())


def difference(fast, exact) -> float:
    """The largest relative difference by norm between two engines' scores of a few starting points, one by one."""
    points = zip(*(one.split(1) for one in _points(exact, COMPARED)), strict=True)
    scores = [(fast(x, level), exact(x, level)) for x, level in points]
    return torch.stack([(one - other).norm() / other.norm().clamp(min=1e-30) for one, other in scores]).max().item()


def _points(fast, count):
    """(x, level) on the way from noise to data."""
    device, levels = fast.model.sigmas.device, len(fast.model.sigmas)
    level = torch.linspace(0, levels - 1, count, device=device).round().long()
    shape, where = (count, *fast.model.shape), {"seed": 0, "device": device}
    x = noise.uniform(shape, stream=noise.INIT, **where)
    x += fast.model.sigmas.float()[level, None, None, None] * noise.normal(shape, stream=noise.DSM, **where)
    return x, level
