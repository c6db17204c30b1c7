"""upsample_bicubic2x against Keys' matrices, torch, Pillow and perturb, in every memory format."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    LAYOUTS,
    ROUNDING,
    arrange,
    assert_same_bits,
    assert_within,
    check_bad_coordinates,
    in_new_thread,
    randn,
    same_for_thread_counts,
    threads,
)
from PIL import Image

from langevin_ext import _native, noise, reference
from langevin_ext.ops import perturb, upsample_bicubic2x

HERE = dict(seed=2**63 + 5, step=6, first=2)
SHAPES = [(1, 1, 1, 1), (2, 3, 1, 6), (2, 3, 6, 1), (2, 2, 2, 2), (3, 3, 6, 7), (1, 4, 5, 3), (2, 1, 16, 300)]
IMAGE = (3, 3, 6, 7)
LARGE = (5, 3, 50, 33)  # enough elements for three threads
DTYPES = [torch.float32, torch.float64]
INPUTS = [torch.float32, torch.bfloat16, torch.float16]
OP = torch.ops.langevin_ext.upsample_bicubic2x.default


def matrix(size, a):
    """(2 size, size) float64: Keys' equation 4 at the distance of each output from each tap, the border repeated."""
    result = torch.zeros(2 * size, size, dtype=torch.float64)
    for o in range(2 * size):
        source = (o + 0.5) / 2 - 0.5
        for i in range(int(np.floor(source)) - 1, int(np.floor(source)) + 3):
            s = abs(source - i)
            inner = (a + 2) * s**3 - (a + 3) * s**2 + 1
            outer = a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a
            result[o, min(max(i, 0), size - 1)] += inner if s <= 1 else outer
    return result


def by_matrices(x, a=-0.75):
    return matrix(x.shape[2], a) @ x.double() @ matrix(x.shape[3], a).T


def bound(x, a=-0.75):
    """Two chains of four roundings each of at most the sum of |w_i w_j x|, and the weights' own: under 12 units."""
    return 12 * ROUNDING[x.dtype] * (matrix(x.shape[2], a).abs() @ x.double().abs() @ matrix(x.shape[3], a).abs().T)


@pytest.mark.parametrize("a", [-0.75, -0.5, -0.3, 0.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_matrices_of_keys(backend, shape, dtype, a):
    x = randn(shape, dtype)
    y = upsample_bicubic2x(x, a=a)
    assert y.dtype == dtype and y.shape == (*shape[:2], 2 * shape[2], 2 * shape[3])
    assert_within(y, by_matrices(x, a), bound(x, a))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_torch(backend, shape, dtype):
    """torch computes positions and weights in x's dtype, at quarters exactly, and sums in another order."""
    x = randn(shape, dtype)
    expected = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert_within(upsample_bicubic2x(x), expected.double(), 2 * bound(x))


def test_equals_pillow_inside(backend):
    """Pillow's weights are float64; at the border it leaves taps out and scales the others up."""
    x = randn((1, 1, 9, 12))
    image = Image.fromarray(x[0, 0].numpy()).resize((24, 18), Image.Resampling.BICUBIC)
    inside = (..., slice(4, -4), slice(4, -4))
    expected = torch.from_numpy(np.array(image))[None, None]
    assert_within(upsample_bicubic2x(x, a=-0.5)[inside], expected[inside].double(), 2 * bound(x, -0.5)[inside])
    assert (upsample_bicubic2x(x)[inside] - expected[inside]).abs().max() > 0.01


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_formats(backend, dtype, layout):
    x = arrange(randn(IMAGE, dtype), layout)
    before = x.clone()
    y, u = upsample_bicubic2x(x, sigma=0.4, input_dtype=torch.float32, **HERE)
    assert torch.equal(x, before)
    expected = upsample_bicubic2x(before.contiguous(), sigma=0.4, **HERE)
    assert torch.equal(y, expected) and torch.equal(u, (2 * expected - 1).float())
    assert y.is_contiguous(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)
    assert u.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("a", [-0.75, -0.3])
@pytest.mark.parametrize("shape", [*SHAPES, LARGE], ids=str)
def test_native_and_plain_torch_give_the_same_bits(shape, a):
    if _native.core(torch.device("cpu")) is None:
        pytest.skip("the native core is not installed")
    x = randn(shape)
    for sigma in (0.0, 0.4):
        arguments = dict(a=a, sigma=sigma, input_dtype=torch.float16, **HERE)
        assert_same_bits(upsample_bicubic2x(x, **arguments), reference.upsample_bicubic2x(x, **arguments))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, LARGE], ids=str)
def test_noise_is_that_of_perturb(backend, shape, dtype, layout):
    """Of the image as it is before; element counts channels, then pixels of the result; stream 11 unless given."""
    x = arrange(randn(shape, dtype), layout)
    level = torch.full(shape[:1], 0.4, dtype=dtype)
    for stream, given in ((noise.RENOISE, {}), (3, {"stream": 3})):
        expected = perturb(upsample_bicubic2x(x), level, stream=stream, **HERE)
        assert torch.equal(upsample_bicubic2x(x, sigma=0.4, **given, **HERE), expected)


def test_noise_alone(backend):
    z = upsample_bicubic2x(torch.zeros(4, 3, 5, 5), sigma=1.0, **HERE)
    assert torch.equal(z, noise.normal((4, 3, 10, 10), stream=noise.RENOISE, **HERE))


@pytest.mark.parametrize("input_dtype", INPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_next_input(backend, layout, input_dtype):
    x = arrange(randn(IMAGE), layout)
    for sigma in (0.0, 0.4):
        y, u = upsample_bicubic2x(x, sigma=sigma, input_dtype=input_dtype, **HERE)
        assert torch.equal(y, upsample_bicubic2x(x, sigma=sigma, **HERE))
        assert u.dtype == input_dtype and torch.equal(u, (2 * y - 1).to(input_dtype))
        assert u.is_contiguous(memory_format=torch.channels_last)


def test_mirrored_and_transposed_images(backend):
    """The two phases are one another's mirror images, to the bit; rows and columns differ by rounding alone."""
    x = randn(IMAGE)
    y = upsample_bicubic2x(x)
    for axes in ([2], [3]):
        assert torch.equal(upsample_bicubic2x(x.flip(axes)), y.flip(axes))
    assert_within(upsample_bicubic2x(x.mT), y.mT.double(), 2 * bound(x).mT)


def test_constants_stay_and_lines_continue(backend):
    """Weights sum to 1 and have a first moment of 0: inside, an affine image is met exactly (dyadic numbers)."""
    assert torch.equal(upsample_bicubic2x(torch.full((1, 2, 4, 5), 3.0)), torch.full((1, 2, 8, 10), 3.0))
    line = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 6, 8)
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    # Keys' kernel reproduces slopes for a = -1/2 only.
    assert torch.equal(upsample_bicubic2x(line, a=-0.5)[..., 4:-4], expected.expand(1, 1, 12, 16)[..., 4:-4])


def test_thread_counts_give_the_same_bits():
    for layout in ("contiguous", "channels_last"):
        x = arrange(randn(LARGE), layout)
        same_for_thread_counts(lambda x=x: upsample_bicubic2x(x, sigma=0.4, input_dtype=torch.bfloat16, **HERE))


def test_batches_give_the_same_bits(backend):
    x = randn(LARGE)
    whole = upsample_bicubic2x(x, sigma=0.4, seed=4, step=2, first=10)
    parts = [
        upsample_bicubic2x(x[rows], sigma=0.4, seed=4, step=2, first=10 + rows.start)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 5))
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_no_samples(backend):
    y, u = upsample_bicubic2x(torch.zeros(0, 3, 4, 5), sigma=1.0, input_dtype=torch.float16)
    assert y.shape == u.shape == (0, 3, 8, 10) and u.dtype == torch.float16


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_is_the_transposed_matrices(backend, shape, layout):
    x = arrange(randn(shape, torch.float64), layout).requires_grad_()
    y, u = upsample_bicubic2x(x, a=-0.3, sigma=0.4, input_dtype=torch.float32, **HERE)
    pull_y, pull_u = randn(y.shape, torch.float64, 1), randn(u.shape, torch.float32, 2)
    for outputs, pulls, total in (
        ([y], [pull_y], pull_y),
        ([u], [pull_u], 2 * pull_u.double()),
        ([y, u], [pull_y, pull_u], pull_y + 2 * pull_u.double()),
    ):
        (grad,) = torch.autograd.grad(outputs, x, pulls, retain_graph=True)
        expected = matrix(shape[2], -0.3).T @ total @ matrix(shape[3], -0.3)
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-12)  # a few dozen roundings of numbers near 1


@pytest.mark.parametrize("input_dtype", INPUTS)
def test_gradient_through_the_next_input(backend, input_dtype):
    x = randn(IMAGE).requires_grad_()
    _, u = upsample_bicubic2x(x, input_dtype=input_dtype)
    pull = randn(u.shape, input_dtype, 1)
    (grad,) = torch.autograd.grad(u, x, pull)
    y = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad, *torch.autograd.grad(y, x, 2 * pull.float()))


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 2, 3, 2)], ids=str)
def test_gradcheck(backend, shape):
    x = randn(shape, torch.float64).requires_grad_()

    def f(x):
        return upsample_bicubic2x(x, a=-0.6, sigma=0.3, **HERE)

    assert torch.autograd.gradcheck(f, x) and torch.autograd.gradgradcheck(lambda x: f(x) ** 2, x)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout, input_dtype", [("channels_last", None), ("columns", torch.float16)])
def test_opcheck(layout, input_dtype, requires_grad):
    x = arrange(randn(IMAGE), layout).requires_grad_(requires_grad)
    torch.library.opcheck(OP, (x, -0.75, 0.4, 1, 2, 0, 11, input_dtype))


def test_compiles_in_one_graph(backend):
    def f(x):
        y, u = upsample_bicubic2x(x, sigma=0.3, input_dtype=torch.bfloat16, **HERE)
        return (y * u).sum() + upsample_bicubic2x(x).square().sum()

    torch._dynamo.reset()
    grads = []
    for function in (f, torch.compile(f, backend="aot_eager", fullgraph=True)):
        x = randn(IMAGE).requires_grad_()
        function(x).backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_inference_mode_and_a_new_thread(backend):
    def f():
        return upsample_bicubic2x(randn(IMAGE), sigma=0.4, **HERE)

    expected = f()
    assert torch.equal(in_new_thread(f), expected)
    with torch.inference_mode(), threads(2):
        assert torch.equal(f(), expected)


@pytest.mark.parametrize("shape", [IMAGE, (2, 1, 6, 7), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_same_strides(backend, layout, shape):
    x = arrange(randn(shape), layout)
    with torch._subclasses.FakeTensorMode() as mode:
        fakes = upsample_bicubic2x(mode.from_tensor(x), input_dtype=torch.float16)
    for fake, real in zip(fakes, upsample_bicubic2x(x, input_dtype=torch.float16), strict=True):
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("input_dtype", [None, *INPUTS])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cuda_gives_the_bits_of_the_cpu(layout, input_dtype):
    for shape in (*SHAPES, LARGE, (3, 3, 64, 64)):
        x = arrange(randn(shape), layout)
        for sigma in (0.0, 0.4):
            arguments = dict(sigma=sigma, input_dtype=input_dtype, **HERE)
            expected, result = upsample_bicubic2x(x, **arguments), upsample_bicubic2x(x.cuda(), **arguments)
            if input_dtype is None:
                expected, result = [expected], [result]
            assert_same_bits([r.cpu() for r in result], expected)


X = torch.zeros(2, 1, 3, 4)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"x": 1.0}, TypeError, "x must be a tensor, got float"),
        ({"x": X.half()}, TypeError, "x must be float32, float64, got float16"),
        ({"x": X[0]}, ValueError, r"x must have shape \(samples, C, H, W\) with H, W >= 1, got \(1, 3, 4\)"),
        ({"x": X[:, :, :0]}, ValueError, r"x must have shape \(.*\) with H, W >= 1, got \(2, 1, 0, 4\)"),
        ({"a": float("nan")}, ValueError, "a must be finite, got nan"),
        ({"sigma": -0.1}, ValueError, "sigma must be finite and >= 0, got -0.1"),
        ({"sigma": float("inf")}, ValueError, "sigma must be finite and >= 0, got inf"),
        (
            {"input_dtype": torch.float64},
            TypeError,
            "input_dtype must be float32, bfloat16, float16 or None with a float32 x, got torch.float64",
        ),
        (
            {"x": X.double(), "input_dtype": torch.float16},
            TypeError,
            "input_dtype must be float32 or None with a float64 x, got torch.float16",
        ),
    ],
)
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^upsample_bicubic2x: {message}$"):
        upsample_bicubic2x(**{"x": X, **arguments})


def test_bad_coordinates_are_named():
    check_bad_coordinates("upsample_bicubic2x", lambda **where: upsample_bicubic2x(X, sigma=1.0, **where))
    with pytest.raises(ValueError, match=r"^upsample_bicubic2x: a sample must have fewer than 2\^34 elements, got"):
        upsample_bicubic2x(torch.zeros(1, 1, 1, 1).expand(1, 1, 2**16, 2**16))
