"""instance_norm_plus on the CUDA kernels, emulated on the CPU: what the cases of emulation.cases leave out."""

import pytest
import test_instance_norm_plus as cpu
import torch

from langevin_ext import _native, ops

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
