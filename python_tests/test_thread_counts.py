"""Every op gives the same bits with 1, 2, 3 and 5 threads, several times over, in both memory formats.

ThreadSanitizer knows nothing of this OpenMP; a race that shows would be a difference here.
"""

import pytest
import torch
from op_cases import arrange, randn, same_for_thread_counts, sigmas

from langevin_ext import _native, ops
from langevin_ext.engine import convolutions
from langevin_ext.engine.arena import Arena
from langevin_ext.ops import norm_forms

SHAPE = (5, 16, 33, 41)  # pieces for five threads, no multiple of a vector, a tile or a strip
AT = {"seed": 7, "step": 3, "first": 11}
ROWS = torch.tensor([[0.1, 0.2, 3.0, 4.0]], dtype=torch.float64)
LEVEL = torch.tensor([2, 0, 1, 2, 0])


def image(layout, seed=0, channels=SHAPE[1]):
    return arrange(randn((SHAPE[0], channels, *SHAPE[2:]), seed=seed), layout)


def with_gradients(function, *tensors):
    """The results, and the gradients of a weighted sum of them."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    results = function(*tensors)
    results = results if isinstance(results, tuple) else (results,)
    total = sum((y * randn(y.shape, seed=9)).sum() for y in results)
    return *(y.detach() for y in results), *torch.autograd.grad(total, tensors)


def norm(layout):
    weight = randn((3, 3 * SHAPE[1]), seed=1)
    return with_gradients(
        lambda x, weight, add: ops.instance_norm_plus(x, weight, LEVEL, elu=True, residual=add),
        image(layout),
        weight,
        image(layout, 2),
    )


def fused_norms(layout):
    """As an engine calls it: with a bias, with and without a residual, and pooled."""
    x, weight, bias = image(layout), randn((3, 3 * SHAPE[1]), seed=1), randn((SHAPE[1],), seed=3)
    core, stats, results = _native.core(x.device), norm_forms.room_for_stats(x), []
    scratch = torch.empty(core.instance_norm_plus_scratch(x, False))
    for other, pool in ((None, False), (image(layout, 2), False), (None, True), (image(layout, 2), True)):
        y, total = torch.empty_like(x), None if other is None else torch.empty_like(x)
        images, options, threads = (x, other, total, y), (False, 1e-5, not pool), torch.get_num_threads()
        norm_forms.launch(core, 0, images, (weight, LEVEL, stats), scratch, options, threads, bias=bias, pool=pool)
        results += [y, stats.clone()] if total is None else [y, stats.clone(), total]
    return results


def convolution(layout):
    return with_gradients(lambda x, w: ops.conv3x3(x, w, None, 2), image(layout), randn((32, SHAPE[1], 3, 3), seed=1))


def rows(layout):
    place, level = torch.tensor([-1, 7, 11]), torch.zeros(3000, dtype=torch.int64)
    ops.advance_row(place, ROWS, level)
    return place, level


CALLS = {
    "advance_row": rows,
    "cld_step": lambda layout: ops.cld_step(
        image(layout, channels=32), image(layout, 1), (0.9, 0.1, -0.2, 0.8), (0.3, 0.4), (0.1, 0.05, 0.2), **AT
    ),
    "conv3x3": convolution,
    "dsm_loss": lambda layout: with_gradients(lambda s: ops.dsm_loss(s, sigmas(5), **AT), image(layout)),
    "instance_norm_plus": norm,
    "langevin_step": lambda layout: ops.langevin_step(image(layout), image(layout, 1), 0.1, 0.2, **AT),
    "langevin_table_step": lambda layout: ops.langevin_table_step(
        image(layout), image(layout, 1), ROWS, torch.tensor([0, 7, 11])
    ),
    "perturb": lambda layout: ops.perturb(image(layout), sigmas(5), **AT),
    "philox_normal": lambda layout: ops.philox_normal(SHAPE, **AT),
    "philox_words": lambda layout: ops.philox_words(SHAPE, **AT),
    "upsample_bicubic2x": lambda layout: ops.upsample_bicubic2x(image(layout), sigma=0.4, **AT),
}


def test_no_op_is_left_out():
    assert sorted(CALLS) == sorted(ops.__all__)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("name", CALLS)
def test_every_count_gives_the_same_bits(name, layout):
    for _ in range(3):
        same_for_thread_counts(lambda: CALLS[name](layout))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_count_gives_the_same_bits_in_fused_norms(layout):
    for _ in range(3):
        same_for_thread_counts(lambda: fused_norms(layout))


@pytest.mark.skipif(bool(convolutions.why_not_int16()), reason=convolutions.why_not_int16())
def test_every_count_gives_the_same_bits_in_int16():
    x, conv = image("channels_last"), convolutions.WinogradInt16(randn((48, SHAPE[1], 3, 3), seed=1), None)

    def result():
        arena = Arena(torch.float32)
        arena.threads = torch.get_num_threads()
        return conv(x, arena)

    for _ in range(3):
        same_for_thread_counts(result)
