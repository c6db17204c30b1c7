"""langevin_step: Algorithm 1, line 6 in place, against float64; what it may touch, and how it meets torch."""

import pytest
import torch
from op_cases import (
    IMAGE,
    LARGE,
    LAYOUTS,
    ROUNDING,
    SHAPES,
    arrange,
    assert_within,
    check_bad_coordinates,
    in_new_thread,
    randn,
    same_for_thread_counts,
)

from langevin_ext import noise
from langevin_ext.ops import langevin_step

HERE = dict(seed=9, step=5, first=3)
SCORES = [torch.float32, torch.bfloat16, torch.float16]
A, B = 0.02, 0.2  # score_coef, noise_coef


def expected_step(x, score, score_coef=A, noise_coef=B, mask=None, **where):
    """The step in float64 with the same normals, and the bound of its float32 rounding.

    x + a s + b z by four roundings (two with fused multiply-adds), each of something below |x| + |a s| + |b z|; and the
    coefficients are rounded to x's dtype.
    """
    x, score = x.double(), score.double()
    z = noise.normal(tuple(x.shape), **(where or HERE)).double()
    moved = x + score_coef * score + noise_coef * z
    bound = 5 * (x.abs() + (score_coef * score).abs() + (noise_coef * z).abs())
    if mask is None:
        return moved, bound
    return torch.where(mask, x, moved), torch.where(mask, torch.zeros_like(bound), bound)


def check(x, score, mask=None, **coefs):
    expected, bound = expected_step(x, score, mask=mask, **coefs)
    returned = langevin_step(x, score, coefs.get("score_coef", A), coefs.get("noise_coef", B), mask=mask, **HERE)
    assert returned is x
    assert_within(x, expected, ROUNDING[x.dtype] * bound)


@pytest.mark.parametrize(
    "coefs, expected",
    [
        ((0.04 / 2, 0.04**0.5), (0.31822754, -0.02493252, 0.23647821, 0.22358628)),  # Song and Ermon's alpha = 0.04
        ((0.04, (2 * 0.04) ** 0.5), (0.42033607, -0.14153407, 0.24531381, 0.10365041)),  # unadjusted Langevin, g = 0.04
    ],
)
def test_both_conventions_by_hand(backend, coefs, expected):
    x, score = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    langevin_step(x, score, *coefs, seed=0, step=0)
    torch.testing.assert_close(x[0], torch.tensor(expected), rtol=0, atol=3e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", SCORES)
def test_sizes_and_score_dtypes(backend, shape, dtype):
    check(randn(shape), randn(shape, dtype, 1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float64(backend, shape):
    check(randn(shape, torch.float64), randn(shape, torch.float64, 1))


@pytest.mark.parametrize(
    "coefs",
    [dict(score_coef=-0.5, noise_coef=2.0), dict(score_coef=0.3, noise_coef=0.0), dict(score_coef=0.0, noise_coef=1.0)],
)
def test_coefficients(backend, coefs):
    check(randn(IMAGE), randn(IMAGE, seed=1), **coefs)


@pytest.mark.parametrize("score_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_memory_formats(backend, x_layout, score_layout):
    x = arrange(randn(IMAGE), x_layout)
    strides = x.stride()
    check(x, arrange(randn(IMAGE, seed=1), score_layout))
    assert x.stride() == strides


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "columns"])
@pytest.mark.parametrize("shape", [IMAGE, IMAGE[1:]], ids=["each", "shared"])
def test_known_pixels_keep_their_bits(backend, layout, shape):
    mask = randn(shape, seed=2) > 0
    x = arrange(randn(IMAGE), layout)
    check(x, randn(IMAGE, torch.bfloat16, 1), mask=arrange(mask, layout) if shape == IMAGE else mask)


def test_a_view_is_changed_where_it_lies_and_nowhere_else(backend):
    wide = torch.full((3, 3, 6, 14), 7.0)
    x = wide[..., ::2]
    x.copy_(randn(IMAGE))
    check(x, randn(IMAGE, seed=1))
    assert (wide[..., 1::2] == 7.0).all()


def test_a_non_finite_score_is_not_hidden(backend):
    x, score = torch.zeros(1, 6), torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0, 1.0, 1.0]])
    langevin_step(x, score, A, B, **HERE)
    assert x[0, 0].isnan() and x[0, 1] == float("inf") and x[0, 2] == -float("inf") and x[0, 3:].isfinite().all()


def test_thread_counts_give_the_same_bits():
    x, score = randn(LARGE), arrange(randn(LARGE, torch.bfloat16, 1), "channels_last")
    same_for_thread_counts(lambda: langevin_step(x.clone(), score, A, B, **HERE))


def test_batches_and_memory_formats_give_the_same_bits(backend):
    score = randn(LARGE, seed=1)
    whole = langevin_step(randn(LARGE), score, A, B, seed=4, step=2, first=10)
    parts = [
        langevin_step(randn(LARGE)[rows].clone(), score[rows], A, B, seed=4, step=2, first=10 + rows.start)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert torch.equal(torch.cat(parts), whole)
    x = arrange(randn(LARGE), "channels_last")
    assert torch.equal(langevin_step(x, score, A, B, seed=4, step=2, first=10), whole)


@pytest.mark.parametrize("change", [dict(seed=10), dict(step=6), dict(first=4), dict(stream=1)])
def test_every_coordinate_moves_the_noise(backend, change):
    x, y = torch.zeros(2, 8), torch.zeros(2, 8)
    langevin_step(x, torch.zeros(2, 8), A, 1.0, **HERE)
    langevin_step(y, torch.zeros(2, 8), A, 1.0, **{**HERE, **change})
    assert (x != y).sum() > 7
    assert torch.equal(y, noise.normal((2, 8), **{**HERE, **change}))


def test_autograd_sees_the_write(backend):
    """A tensor saved for a backward pass and then stepped over makes that pass fail."""
    weight = torch.ones(2, 3, requires_grad=True)
    x = torch.ones(2, 3)
    loss = (weight * x).sum()
    version = x._version
    langevin_step(x, torch.zeros(2, 3), A, B, **HERE)
    assert x._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_modes_and_threads_of_python(backend):
    def step():
        return langevin_step(randn(IMAGE), randn(IMAGE, seed=1), A, B, **HERE)

    expected = step()
    assert torch.equal(in_new_thread(step), expected)
    with torch.inference_mode():
        assert torch.equal(step(), expected)
    with torch.no_grad():
        x = randn(IMAGE).requires_grad_()
        assert torch.equal(langevin_step(x, randn(IMAGE, seed=1), A, B, **HERE), expected)


@pytest.mark.parametrize("case", ["plain", "mask", "channels_last", "float64", "strided"])
def test_opcheck(case):
    dtype = torch.float64 if case == "float64" else torch.float32
    layout = {"channels_last": "channels_last", "strided": "columns"}.get(case, "contiguous")
    x, score = arrange(randn(IMAGE, dtype), layout), randn(IMAGE, dtype, 1)
    mask = randn(IMAGE[1:]) > 0 if case == "mask" else None
    torch.library.opcheck(torch.ops.langevin_ext.langevin_step.default, (x, score, mask, A, B, 9, 5, 3, 0))


def test_compiles_in_one_graph(backend):
    def chain(x, score):
        for step in range(3):
            langevin_step(x, score - x, A, B, seed=7, step=step)
        return x

    expected = chain(randn(IMAGE), randn(IMAGE, seed=1))
    torch._dynamo.reset()
    x = randn(IMAGE)
    result = torch.compile(chain, backend="aot_eager", fullgraph=True)(x, randn(IMAGE, seed=1))
    assert torch.equal(x, expected) and torch.equal(result, expected)


def test_fake_tensors_have_no_memory_and_need_none(backend):
    with torch._subclasses.FakeTensorMode():
        x = torch.empty(IMAGE)
        assert langevin_step(x, torch.empty(IMAGE), A, B, **HERE) is x


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", SCORES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cuda_gives_the_bits_of_the_cpu(dtype, layout):
    x, score, mask = arrange(randn(LARGE), layout), randn(LARGE, dtype, 1), randn(LARGE[1:]) > 1
    for known in (None, mask):
        on_gpu = langevin_step(x.cuda(), score.cuda(), A, B, mask=None if known is None else known.cuda(), **HERE)
        assert torch.equal(on_gpu.cpu(), langevin_step(x.clone(), score, A, B, mask=known, **HERE))


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "args, error, message",
    [
        ((None, X, A, B), TypeError, "x must be a tensor, got NoneType"),
        ((X.half(), X, A, B), TypeError, "x must be float32, float64, got float16"),
        ((torch.zeros(2), torch.zeros(2), A, B), ValueError, r"x must have shape \(samples, ...\), got \(2,\)"),
        ((X, [1.0], A, B), TypeError, "score must be a tensor, got list"),
        ((X, X.double(), A, B), TypeError, "score must be float32, bfloat16, float16, got float64"),
        ((X.double(), X, A, B), TypeError, "score must be float64, got float32"),
        ((X, X[:, :2], A, B), ValueError, r"score must have shape \(2, 3\) to go with x, got \(2, 2\)"),
        ((X, X.to("meta"), A, B), ValueError, "score must be on x's device cpu, got meta"),
        ((X, X, float("nan"), B), ValueError, "score_coef and noise_coef must be finite .*, got nan and 0.2"),
        ((X, X, A, -B), ValueError, "score_coef and noise_coef must be finite and noise_coef >= 0, got 0.02 and -0.2"),
        ((torch.zeros(2, 3, requires_grad=True), X, A, B), ValueError, "x must not require grad, .*"),
        ((X, torch.zeros(2, 3, requires_grad=True), A, B), ValueError, "score must not require grad, .*"),
    ],
)
def test_mistakes_are_named(args, error, message):
    with pytest.raises(error, match=f"^langevin_step: {message}$"):
        langevin_step(*args, seed=1, step=2)


@pytest.mark.parametrize(
    "mask, error, message",
    [
        (X, TypeError, "mask must be bool, got float32"),
        (torch.zeros(2, 2, dtype=torch.bool), ValueError, r"mask must have shape \(2, 3\) to go with x, got \(2, 2\)"),
        (torch.zeros(2, dtype=torch.bool), ValueError, r"mask must have shape \(3,\) to go with x, got \(2,\)"),
    ],
)
def test_bad_masks_are_named(mask, error, message):
    with pytest.raises(error, match=f"^langevin_step: {message}$"):
        langevin_step(X.clone(), X, A, B, seed=1, step=2, mask=mask)


def test_bad_coordinates_are_named():
    check_bad_coordinates("langevin_step", lambda **where: langevin_step(X.clone(), X, A, B, **where))
    huge = torch.zeros(1, 1).expand(1, 2**34)
    with pytest.raises(ValueError, match=r"^langevin_step: a sample must have fewer than 2\^34 elements, got 1717986"):
        langevin_step(huge, huge, A, B, seed=1, step=2)


@pytest.mark.parametrize("shift", [1, 3])
def test_a_score_in_the_memory_of_x_is_read_as_it_was(shift):
    memory = torch.arange(40.0)
    x, score = memory[:32].view(2, 16), memory[shift : 32 + shift].view(2, 16)
    expected = x + 0.5 * score.clone()
    langevin_step(x, score, 0.5, 0.0, seed=1, step=0)
    assert torch.equal(x, expected)
