"""The words and normals of `langevin_ext.noise`."""

import torch

from .. import _native, reference
from ..reference import check_counter
from .common import define, signed, unsigned, written


def _philox_fill(out, seed, step, first, stream):
    core = _native.core(out.device)
    if core is None:
        draw = reference.philox_words if out.dtype == torch.int64 else reference.philox_normal
        out.copy_(draw(tuple(out.shape), seed=unsigned(seed), step=step, first=first, stream=stream, device=out.device))
        return
    fill = core.philox_words if out.dtype == torch.int64 else core.philox_normal
    fill(out, seed, step, first, stream, torch.get_num_threads())
    written(out)


_philox_fill_op = define(
    "philox_fill(Tensor(a!) out, int seed, int step, int first, int stream) -> ()",
    _philox_fill,
    lambda out, seed, step, first, stream: None,
)


def _philox(name, dtype, shape, seed, step, first, stream, device):
    check_counter(name, seed, step, first, stream, shape)
    out = torch.empty(shape, dtype=dtype, device=device)
    _philox_fill_op(out, signed(seed), step, first, stream)
    return out


def philox_words(shape, *, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Raw Philox words as int64; see `langevin_ext.noise.words`."""
    return _philox("philox_words", torch.int64, shape, seed, step, first, stream, device)


def philox_normal(shape, *, seed, step=0, first=0, stream=0, device=None) -> torch.Tensor:
    """Standard normals, float32; see `langevin_ext.noise.normal`."""
    return _philox("philox_normal", torch.float32, shape, seed, step, first, stream, device)
