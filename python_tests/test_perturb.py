"""perturb: x + sigma z against float64, with the noise of langevin_ext.noise, in every dtype and memory format."""

import pytest
import torch
from op_cases import (
    IMAGE,
    LARGE,
    LAYOUTS,
    ROUNDING,
    SHAPES,
    SUBNORMAL,
    arrange,
    assert_within,
    check_bad_coordinates,
    compute_dtype,
    in_new_thread,
    per_sample,
    randn,
    same_for_thread_counts,
    sigmas,
)

from langevin_ext import noise
from langevin_ext.ops import perturb

HERE = dict(seed=2**63 + 5, step=6, first=2)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
OP = torch.ops.langevin_ext.perturb.default


def check(x, sigma):
    """Against float64 with the same normals.

    x + sigma z by two roundings (one with a fused multiply-add) of something below |x| + |sigma z| in the dtype that is
    computed with, and one to x's dtype: 1.01 covers the products of roundings.
    """
    out = perturb(x, sigma, **HERE)
    z = noise.normal(tuple(x.shape), stream=noise.DSM, **HERE).double()
    scaled = per_sample(sigma, x) * z
    expected = x.double() + scaled
    bound = 2 * ROUNDING[compute_dtype(x.dtype)] * (x.double().abs() + scaled.abs())
    if x.dtype != compute_dtype(x.dtype):
        bound += ROUNDING[x.dtype] * expected.abs()
    assert out.dtype == x.dtype and out.shape == x.shape
    assert_within(out, expected, 1.01 * bound + SUBNORMAL[x.dtype])
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_and_dtypes(backend, shape, dtype):
    check(randn(shape, dtype), sigmas(shape[0], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_formats(backend, layout, dtype):
    x = arrange(randn(IMAGE, dtype), layout)
    before = x.clone()
    out = check(x, sigmas(3, dtype))
    assert torch.equal(x, before)
    dense = layout in ("contiguous", "channels_last")
    assert out.stride() == (x.stride() if dense else torch.empty(IMAGE).stride())
    assert torch.equal(out, perturb(before.contiguous(), sigmas(3, dtype), **HERE))


def test_the_noise_is_that_of_stream_3(backend):
    """Each bit of it: x = 0, sigma = 1."""
    out = perturb(torch.zeros(4, 3, 5, 5), torch.ones(4), **HERE)
    assert torch.equal(out, noise.normal((4, 3, 5, 5), stream=3, **HERE))
    other = perturb(torch.zeros(4, 3, 5, 5), torch.ones(4), stream=11, **HERE)
    assert torch.equal(other, noise.normal((4, 3, 5, 5), stream=11, **HERE))


def test_sigma_of_any_stride_and_sigma_zero(backend):
    x = randn((4, 9))
    wide = sigmas(8)
    assert torch.equal(perturb(x, wide[::2], **HERE), perturb(x, wide[::2].clone(), **HERE))
    assert torch.equal(perturb(x, torch.zeros(4), **HERE), x)
    double = perturb(x.double(), wide[::2], **HERE)  # float32 levels beside a float64 x
    assert torch.equal(double, perturb(x.double(), wide[::2].double(), **HERE))


def test_thread_counts_give_the_same_bits():
    for layout in ("contiguous", "channels_last"):
        x = arrange(randn(LARGE), layout)
        same_for_thread_counts(lambda x=x: perturb(x, sigmas(6), **HERE))


def test_batches_give_the_same_bits(backend):
    x, sigma = randn(LARGE), sigmas(6)
    whole = perturb(x, sigma, seed=4, step=2, first=10)
    parts = [
        perturb(x[rows], sigma[rows], seed=4, step=2, first=10 + rows.start)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_passes_unchanged(backend, dtype):
    x = arrange(randn(IMAGE, dtype), "channels_last").requires_grad_()
    upstream = randn(IMAGE, dtype, 1)
    (grad,) = torch.autograd.grad(perturb(x, sigmas(3, dtype), **HERE), x, upstream)
    assert grad.dtype == dtype and torch.equal(grad, upstream)


def test_gradcheck(backend):
    x = randn((2, 3, 2, 2), torch.float64).requires_grad_()

    def f(x):
        return perturb(x, sigmas(2, torch.float64), **HERE)

    assert torch.autograd.gradcheck(f, x) and torch.autograd.gradgradcheck(lambda x: f(x) ** 2, x)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout, requires_grad):
    x = arrange(randn(IMAGE), layout).requires_grad_(requires_grad)
    torch.library.opcheck(OP, (x, sigmas(3), 1, 2, 0, 3))


def test_compiles_in_one_graph(backend):
    def f(x, sigma):
        return (perturb(x, sigma, **HERE) * x).sum()

    torch._dynamo.reset()
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    grads = []
    for function in (f, compiled):
        x = randn(IMAGE).requires_grad_()
        function(x, sigmas(3)).backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_inference_mode_and_a_new_thread(backend):
    def f():
        return perturb(randn(IMAGE), sigmas(3), **HERE)

    expected = f()
    assert torch.equal(in_new_thread(f), expected)
    with torch.inference_mode():
        assert torch.equal(f(), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_same_strides(backend, layout):
    x = arrange(randn(IMAGE, torch.bfloat16), layout)
    real = perturb(x, sigmas(3), **HERE)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = perturb(mode.from_tensor(x), torch.empty(3), **HERE)
    assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cuda_gives_the_bits_of_the_cpu(dtype, layout):
    for shape in (LARGE, (3, 3, 64, 64), (2, 3, 5, 7)):
        x, sigma = arrange(randn(shape, dtype), layout), sigmas(shape[0])
        assert torch.equal(perturb(x.cuda(), sigma.cuda(), **HERE).cpu(), perturb(x, sigma, **HERE))


X, SIGMA = torch.zeros(2, 3), torch.ones(2)


@pytest.mark.parametrize(
    "x, sigma, error, message",
    [
        (1.0, SIGMA, TypeError, "x must be a tensor, got float"),
        (X.long(), SIGMA, TypeError, "x must be float32, float64, bfloat16, float16, got int64"),
        (torch.zeros(2), SIGMA, ValueError, r"x must have shape \(samples, ...\), got \(2,\)"),
        (X, 0.1, TypeError, "sigma must be a tensor, got float"),
        (X, SIGMA.double(), TypeError, "sigma must be float32, got float64"),
        (X.double(), SIGMA.half(), TypeError, "sigma must be float32, float64, got float16"),
        (X, torch.ones(3), ValueError, r"sigma must have shape \(2,\) to go with x, got \(3,\)"),
        (X, torch.ones(2, 1), ValueError, r"sigma must have shape \(2,\) to go with x, got \(2, 1\)"),
        (X, SIGMA.to("meta"), ValueError, "sigma must be on x's device cpu, got meta"),
        (
            X,
            torch.ones(2, requires_grad=True),
            ValueError,
            "sigma must not require grad, there is no gradient in sigma",
        ),
    ],
)
def test_mistakes_are_named(x, sigma, error, message):
    with pytest.raises(error, match=f"^perturb: {message}$"):
        perturb(x, sigma, seed=1, step=2)


def test_bad_coordinates_are_named():
    check_bad_coordinates("perturb", lambda **where: perturb(X, SIGMA, **where))
    with pytest.raises(ValueError, match=r"^perturb: a sample must have fewer than 2\^34 elements, got 17179869184$"):
        perturb(torch.zeros(1, 1).expand(1, 2**34), torch.ones(1), seed=1, step=2)
