"""instance_norm_plus on the CUDA kernels, emulated on the CPU: what the cases of emulation.cases leave out."""

import itertools

import pytest
import test_instance_norm_plus as cpu
import torch
from emulation.harness import same_bits

from langevin_ext import _native, ops, reference
from langevin_ext.ops import norm_forms

pytestmark = pytest.mark.skipif(_native._core is None, reason="the native core is not installed")
FORMATS = cpu.FORMATS


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1030, 1, 2), (2, 520, 3, 4), (1, 3, 45, 47), (1, 2, 130, 130), (3, 40, 1, 1), (2, 48, 8, 8)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_against_float64(emulated, shape, layout, dtype):
    # More channels than a tile has, many chunks, thread rows that are no power of two.
    x, residual, *rest = cpu.inputs(shape, dtype, layout)
    cpu.check("native", x, None, *rest, elu=True)
    cpu.check("native", x, residual, *rest)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 32, 33), (2, 40, 17, 16)], ids=str)
def test_small_variance_around_a_large_mean(emulated, shape, layout):
    cpu.test_small_variance_around_a_large_mean("native", shape, layout)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (1, 17, 40, 40), (2, 6, 1, 1)], ids=str)
def test_a_constant_becomes_beta(emulated, shape, layout):
    cpu.test_a_constant_becomes_beta("native", shape, layout)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_sample_does_not_see_the_batch(emulated, layout):
    x, residual, weight, level, *grads = cpu.inputs((5, 6, 33, 33), torch.float32, layout)
    whole = cpu.run(ops.instance_norm_plus, x, residual, weight, level, *grads, elu=True)
    for n in range(5):
        one = cpu.run(
            ops.instance_norm_plus,
            *(t[n : n + 1] for t in (x, residual)),
            weight,
            level[n : n + 1],
            *(t[n : n + 1] for t in grads),
            elu=True,
        )
        for index in (0, 1, 3, 4):
            assert torch.equal(one[index], whole[index][n : n + 1])


def test_the_weight_alone_and_x_alone(emulated):
    x, residual, weight, level, grad_y, grad_sum = cpu.inputs((3, 4, 5, 6), torch.float32)
    _, grad_x, grad_weight = cpu.run(ops.instance_norm_plus, x, None, weight, level, grad_y, grad_sum)
    one, other = x.clone().requires_grad_(), weight.clone().requires_grad_()
    ops.instance_norm_plus(one, weight, level).backward(grad_y)
    ops.instance_norm_plus(x, other, level).backward(grad_y)
    assert torch.equal(one.grad, grad_x) and torch.equal(other.grad, grad_weight)


@pytest.mark.cuda
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_on_a_gpu(layout, dtype):
    for shape in cpu.SHAPES:
        x, residual, *rest = (t.cuda() for t in cpu.inputs(shape, dtype, layout))
        cpu.check("native", x, None, *rest, elu=True)
        cpu.check("native", x, residual, *rest)


@pytest.mark.cuda
def test_a_level_outside_the_table_makes_nan_on_a_gpu():
    x, _, weight, _, grad_y, _ = (t.cuda() for t in cpu.inputs((3, 4, 5, 6), torch.float32))
    level = torch.tensor([1, 4, -1], device="cuda")
    y, grad_x, grad_weight = cpu.run(ops.instance_norm_plus, x, None, weight, level, grad_y, None)
    assert y[0].isfinite().all() and y[1:].isnan().all()
    assert grad_x[1:].isnan().all() and grad_weight.isfinite().all()


def launched(x, residual, weight, level, *, blocks=0, bias=None, pool=False):
    """(y, sum or None, statistics) of a launch with what an engine asks for."""
    core, y, stats = _native.core_for(x), torch.empty_like(x), norm_forms.room_for_stats(x)
    total, residual = None if residual is None else torch.empty_like(x), norm_forms.like(residual, x)
    scratch, options = stats.new_empty(core.instance_norm_plus_scratch(x, False)), (False, 1e-5, not pool)
    images, table = (x, residual, total, y), (weight, level, stats)
    norm_forms.launch(core, blocks, images, table, scratch, options, bias=bias, pool=pool)
    return y, total, stats


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_channel_whose_variance_is_infinite_is_as_on_the_cpu(emulation, layout):
    x, _, weight, level, *grads = cpu.inputs((2, 4, 8, 8), torch.float32, layout)
    x[:, 1] = torch.tensor([1e20, -1e20]).repeat(32).view(8, 8)
    wanted = cpu.run(ops.instance_norm_plus, x, None, weight, level, *grads, elu=True)
    assert wanted[0].isfinite().all()

    def run():
        forms = [0, *norm_forms.possible(_native.core_for(x), x)]
        values = [launched(x, None, weight, level, blocks=blocks)[0] for blocks in forms]
        return [*cpu.run(ops.instance_norm_plus, x, None, weight, level, *grads, elu=True), *values]

    found = emulation.run(run)
    for result, expected in zip(found, wanted + wanted[:1] * len(found[3:]), strict=True):
        torch.testing.assert_close(result, expected)


def check_launched(x, residual, weight, level, bias, pool):
    """Against float64, of the sum as it is stored; clusters, which do not pool, against two kernels."""
    y, total, stats = launched(x, residual, weight, level, bias=bias, pool=pool)
    if residual is not None:
        assert torch.equal(total, (x.float() + residual.float() + bias[:, None, None]).to(x.dtype))
    exact = x.double() + bias[:, None, None] if residual is None else total.double()
    exact = reference.instance_norm_plus(exact, weight.double(), level, elu=not pool)
    exact = torch.nn.functional.avg_pool2d(exact, 5, stride=1, padding=2) if pool else exact
    bound, size = cpu.ROUNDING[x.dtype], max(exact.abs().max().item(), 1e-3)
    torch.testing.assert_close(y.double(), exact, rtol=bound, atol=1e-5 * size)
    for blocks in [] if pool else norm_forms.possible(_native.core_for(x), x):
        one = launched(x, residual, weight, level, blocks=blocks, bias=bias)
        for result, wanted in zip(one, (y, total, stats), strict=True):
            assert result is wanted is None or same_bits(result, wanted)


POOLED = [(2, 6, 3, 4), (1, 34, 33, 71), (2, 8, 18, 5)]  # smaller than the window; several strips; halves of pairs


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", POOLED, ids=str)
def test_a_bias_and_the_mean_over_5x5_pixels(emulated, shape, layout):
    x, residual, weight, level, *_ = cpu.inputs(shape, torch.float16, layout)
    for other, pool in itertools.product((None, residual), (False, True)):
        check_launched(x, other, weight, level, torch.linspace(-2, 3, shape[1]), pool)


@pytest.mark.cuda
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_bias_and_the_mean_over_5x5_pixels_on_a_gpu(layout, dtype):
    for shape in [*cpu.SHAPES, *POOLED, (3, 256, 16, 16), (1, 128, 64, 64)]:
        x, residual, weight, level, *_ = (t.cuda() for t in cpu.inputs(shape, dtype, layout))
        for other, pool in itertools.product((None, residual), (False, True)):
            check_launched(x, other, weight, level, torch.linspace(-2, 3, shape[1], device="cuda"), pool)
