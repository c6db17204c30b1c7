"""dsm_loss: values by hand and in float64, first and second derivatives, bits that depend on nothing but the inputs."""

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
    assert_same_bits,
    assert_within,
    check_bad_coordinates,
    compute_dtype,
    per_sample,
    randn,
    same_for_thread_counts,
    sigmas,
)

from langevin_ext import noise
from langevin_ext.ops import dsm_loss, perturb

HERE = dict(seed=2**63 + 5, step=6, first=2)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
POWERS = [2.0, 0.0, 1.0, 3.5]
OP = torch.ops.langevin_ext.dsm_loss.default


def loss_and_grad(score, sigma, upstream=None, **options):
    """The loss of each sample, and the gradient of sum upstream loss."""
    score = score.detach().requires_grad_()
    loss = dsm_loss(score, sigma, **{**HERE, **options})
    upstream = torch.ones_like(loss) if upstream is None else upstream
    return loss.detach(), torch.autograd.grad(loss, score, upstream)[0]


def check(score, sigma, power):
    """Against float64 with the same normals, u being one rounding of the dtype that is computed with.

    r = sigma s + z has two roundings (one if fused) of something below m = |sigma s| + |z|, so r^2 moves by 4 u |r| m.
    The sum is of squares, so that each of its roundings moves it by u of itself at most: 13 of the tree, and torch's
    blocked sum needs fewer than 40. The weight has 3. The gradient has those of r, weight and upstream (8 in all), and
    two of the score's dtype: where it is stored, and after the product with upstream.
    """
    upstream = randn((len(score),), compute_dtype(score.dtype), 3)
    loss, grad = loss_and_grad(score, sigma, upstream, anneal_power=power)
    u, s, level = ROUNDING[loss.dtype], score.double(), per_sample(sigma, score)
    z = noise.normal(tuple(score.shape), stream=noise.DSM, **HERE).double()
    r, m = level * s + z, (level * s).abs() + z.abs()
    weight = sigma.double() ** (power - 2)
    expected = 0.5 * weight * r.square().flatten(1).sum(1)
    assert loss.dtype == compute_dtype(score.dtype) and loss.shape == score.shape[:1]
    assert_within(loss, expected, 43 * u * expected + 2.1 * u * weight * (r.abs() * m).flatten(1).sum(1))
    scale = per_sample(upstream.double() * weight * sigma.double(), score)
    bound = 8 * u * (scale * m).abs()
    if score.dtype != loss.dtype:
        bound += 2.02 * ROUNDING[score.dtype] * (scale * r).abs()
    absolute = SUBNORMAL[score.dtype] * (1 + per_sample(upstream, score).abs())
    assert grad.dtype == score.dtype and grad.shape == score.shape
    assert_within(grad, scale * r, bound + absolute)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power, expected", [(2.0, (2.0, 0.1)), (0.0, (8.0, 0.025)), (1.0, (4.0, 0.05))])
def test_example_by_hand(backend, dtype, power, expected):
    """x = [[1, -1], [.5, 0]], z = [[.5, 2], [-1, 1]], sigma = (.5, 2), s = -x_noisy / (1 + sigma^2).

    The op makes its own z', so the score takes the difference: sigma s' + z' = sigma s + z.
    """
    x, z = torch.tensor([[1, -1], [0.5, 0]], dtype=dtype), torch.tensor([[0.5, 2], [-1, 1]], dtype=dtype)
    sigma = torch.tensor([0.5, 2], dtype=dtype)
    s = -(x + sigma[:, None] * z) / (1 + sigma[:, None] ** 2)
    own = noise.normal((2, 2), stream=noise.DSM, **HERE).to(dtype)
    loss, grad = loss_and_grad(s + (z - own) / sigma[:, None], sigma, anneal_power=power)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=dtype))
    if power == 2.0:
        torch.testing.assert_close(loss.mean(), torch.tensor(1.05, dtype=dtype))
        torch.testing.assert_close(grad, torch.tensor([[0.0, 1.0], [-0.8, 0.4]], dtype=dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [2.0, 0.0])
def test_target_is_that_of_the_perturbed_images(backend, power):
    """1/2 sigma^p |s - target|^2 with target = -(x_noisy - x) / sigma^2: perturb and dsm_loss share their noise."""
    x, score, sigma = randn(IMAGE, torch.float64), randn(IMAGE, torch.float64, 1), sigmas(3, torch.float64)
    level = per_sample(sigma, x)
    target = -(perturb(x, sigma, **HERE) - x) / level**2
    expected = 0.5 * sigma**power * (score - target).square().flatten(1).sum(1)
    loss, grad = loss_and_grad(score, sigma, anneal_power=power)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=0)
    torch.testing.assert_close(grad, level**power * (score - target), rtol=1e-9, atol=1e-9)


def test_loss_of_the_linear_score(backend):
    """s = -2.5 (x - m) for data N(m, 0.0625), sigma = 0.35938137: the population losses within 5 standard errors."""
    n, s0, mean, level = 1 << 18, 0.25, 0.5, 0.35938137
    x = mean + s0 * noise.normal((n, 1), seed=1, stream=noise.INIT)
    sigma = torch.full((n,), level)
    score = -2.5 * (perturb(x, sigma, **HERE) - mean)
    for power, expected in ((2.0, 0.25446630), (0.0, 1.97024018)):
        loss = dsm_loss(score, sigma, anneal_power=power, **HERE).double()
        assert abs(loss.mean() - expected) < 5 * loss.std() / n**0.5


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_dtypes_and_powers(backend, shape, dtype, power):
    check(randn(shape, dtype), sigmas(shape[0], dtype), power)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_formats(backend, layout, dtype):
    score, sigma = arrange(randn(IMAGE, dtype), layout), sigmas(3, dtype)
    check(score, sigma, 2.0)
    dense = layout in ("contiguous", "channels_last")
    assert loss_and_grad(score, sigma)[1].stride() == (score.stride() if dense else torch.empty(IMAGE).stride())


@pytest.mark.parametrize("shape", [IMAGE, LARGE], ids=str)
def test_memory_formats_give_the_same_bits(shape):
    sigma = sigmas(shape[0])
    expected = loss_and_grad(randn(shape), sigma, anneal_power=1.0)
    for layout in LAYOUTS:
        assert_same_bits(loss_and_grad(arrange(randn(shape), layout), sigma, anneal_power=1.0), expected)


def test_thread_counts_give_the_same_bits():
    for layout in ("contiguous", "channels_last"):
        score = arrange(randn(LARGE), layout)
        same_for_thread_counts(lambda score=score: loss_and_grad(score, sigmas(6)))


def test_batches_give_the_same_bits():
    score, sigma = randn(LARGE), sigmas(6)
    whole = loss_and_grad(score, sigma, first=10, anneal_power=0.7)
    parts = [
        loss_and_grad(score[rows], sigma[rows], first=10 + rows.start, anneal_power=0.7)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert_same_bits([torch.cat(results) for results in zip(*parts, strict=True)], whole)


def test_the_loss_is_the_same_without_a_gradient(backend):
    score, sigma = randn(IMAGE), sigmas(3)
    expected, _ = loss_and_grad(score, sigma)
    assert torch.equal(dsm_loss(score, sigma, **HERE), expected)
    with torch.no_grad():
        assert torch.equal(dsm_loss(score.requires_grad_(), sigma, **HERE), expected)
    with torch.inference_mode():
        assert torch.equal(dsm_loss(score, sigma, **HERE), expected)
    loss, grad = OP(score.detach(), sigma, 2.0, False, 1, 2, 0, 3)
    assert loss.shape == (3,) and grad.numel() == 0


def test_sigma_zero_and_sigma_of_any_stride(backend):
    score, wide = randn((4, 9)), sigmas(8)
    assert_same_bits(loss_and_grad(score, wide[::2]), loss_and_grad(score, wide[::2].clone()))
    loss, grad = loss_and_grad(score, torch.zeros(4))
    z = noise.normal((4, 9), stream=3, **HERE).double()
    torch.testing.assert_close(loss.double(), 0.5 * z.square().sum(1), rtol=1e-6, atol=0)
    assert (grad == 0).all()


@pytest.mark.parametrize("power", [2.0, 1.5])
def test_gradcheck(backend, power):
    score, sigma = randn((2, 3, 3, 2), torch.float64).requires_grad_(), sigmas(2, torch.float64) + 0.3

    def f(score):
        return dsm_loss(score, sigma, anneal_power=power, **HERE)

    assert torch.autograd.gradcheck(f, score) and torch.autograd.gradgradcheck(f, score)
    assert torch.autograd.gradgradcheck(lambda s: f(s.sin()) ** 2, score)


def test_hessian_and_beyond(backend):
    """The loss is quadratic: its Hessian is sigma^p, its third derivative zero."""
    score, sigma = randn(IMAGE).requires_grad_(), sigmas(3)
    (grad,) = torch.autograd.grad(dsm_loss(score, sigma, anneal_power=3.0, **HERE).sum(), score, create_graph=True)
    (product,) = torch.autograd.grad(grad, score, randn(IMAGE, seed=1), create_graph=True)
    expected = per_sample(sigma, score) ** 3 * randn(IMAGE, seed=1)
    torch.testing.assert_close(product.double(), expected, rtol=1e-6, atol=0)
    assert not product.requires_grad


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(layout, requires_grad):
    score = arrange(randn(IMAGE), layout).requires_grad_(requires_grad)
    torch.library.opcheck(OP, (score, sigmas(3), 2.0, requires_grad, 1, 2, 0, 3))


def test_opcheck_of_half_precision_and_other_powers():
    score = randn(IMAGE, torch.bfloat16).requires_grad_()
    torch.library.opcheck(OP, (score, sigmas(3), 0.5, True, 1, 2, 0, 3))


def test_compiles_in_one_graph(backend):
    def f(score, sigma):
        return dsm_loss(score * score, sigma, **HERE).mean()

    torch._dynamo.reset()
    compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
    results = []
    for function in (f, compiled):
        score = randn(IMAGE).requires_grad_()
        loss = function(score, sigmas(3))
        loss.backward()
        results.append((loss.detach(), score.grad))
    assert_same_bits(*results)


@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_same_strides(backend, layout, with_grad):
    score = arrange(randn(IMAGE, torch.float16), layout)
    real = OP(score, sigmas(3), 2.0, with_grad, 1, 2, 0, 3)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = OP(mode.from_tensor(score), torch.empty(3), 2.0, with_grad, 1, 2, 0, 3)
    for a, b in zip(fake, real, strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cuda_gives_the_bits_of_the_cpu(dtype, layout):
    for shape in (LARGE, (3, 3, 64, 64), (2, 3, 5, 7)):
        score, sigma = arrange(randn(shape, dtype), layout), sigmas(shape[0])
        on_gpu = loss_and_grad(score.cuda(), sigma.cuda())
        assert_same_bits([result.cpu() for result in on_gpu], loss_and_grad(score, sigma))


X, SIGMA = torch.zeros(2, 3), torch.ones(2)


@pytest.mark.parametrize(
    "score, sigma, power, error, message",
    [
        (1.0, SIGMA, 2.0, TypeError, "score must be a tensor, got float"),
        (X.long(), SIGMA, 2.0, TypeError, "score must be float32, float64, bfloat16, float16, got int64"),
        (torch.zeros(2), SIGMA, 2.0, ValueError, r"score must have shape \(samples, ...\), got \(2,\)"),
        (X, 0.1, 2.0, TypeError, "sigma must be a tensor, got float"),
        (X.bfloat16(), SIGMA.bfloat16(), 2.0, TypeError, "sigma must be float32, got bfloat16"),
        (X, torch.ones(3), 2.0, ValueError, r"sigma must have shape \(2,\) to go with score, got \(3,\)"),
        (X, SIGMA.to("meta"), 2.0, ValueError, "sigma must be on score's device cpu, got meta"),
        (X, torch.ones(2, requires_grad=True), 2.0, ValueError, "sigma must not require grad, there is no gradient .*"),
        (X, SIGMA, float("inf"), ValueError, "anneal_power must be finite, got inf"),
    ],
)
def test_mistakes_are_named(score, sigma, power, error, message):
    with pytest.raises(error, match=f"^dsm_loss: {message}$"):
        dsm_loss(score, sigma, seed=1, step=2, anneal_power=power)


def test_bad_coordinates_are_named():
    check_bad_coordinates("dsm_loss", lambda **where: dsm_loss(X, SIGMA, **where))
    with pytest.raises(ValueError, match=r"^dsm_loss: a sample must have fewer than 2\^34 elements, got 17179869184$"):
        dsm_loss(torch.zeros(1, 1).expand(1, 2**34), torch.ones(1), seed=1, step=2)
