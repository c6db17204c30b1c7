"""cld_step: (x, v) <- A (x, v) + b s + N (z_x, z_v) in place, against float64; its noise, and how it meets torch."""

import math

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

from langevin_ext import noise, reference
from langevin_ext.ops import cld_step

HERE = dict(seed=9, step=5, first=3)
A, B, N = (0.9, -0.3, 0.2, 1.4), (-0.1, 0.7), (0.3, -0.2, 0.5)
BETA, M, GAMMA = 4.0, 0.25, 1.0
STATES = [torch.float32, torch.float64]


def both(shape):
    """The shape of u for that of x."""
    return shape[0], 2 * shape[1], *shape[2:]


def inputs(shape, dtype=torch.float32, u_layout="contiguous", score_layout="contiguous"):
    return arrange(randn(both(shape), dtype), u_layout), arrange(randn(shape, dtype, 1), score_layout)


def normals(shape, **where):
    return [noise.normal(shape, **(where or HERE), stream=stream) for stream in (noise.CLD_X, noise.CLD_V)]


def expected_step(u, score, a=A, b=B, n=N):
    """The step in float64 with the same normals, and the bound of its rounding.

    Five terms are each rounded at most three times (coefficient, product, and z or A - I, exact or not) and added by
    four sums; then one sum with x. Each rounding is of something below the sum of sizes.
    """
    x, v = u.double().chunk(2, dim=1)
    z_x, z_v = (z.double() for z in normals(tuple(x.shape)))
    s = torch.zeros_like(x) if score is None else score.double()
    rows = [
        (x, [(a[0] - 1) * x, a[1] * v, b[0] * s, n[0] * z_x]),
        (v, [a[2] * x, (a[3] - 1) * v, b[1] * s, n[1] * z_x, n[2] * z_v]),
    ]
    moved = torch.cat([old + sum(terms) for old, terms in rows], dim=1)
    sizes = torch.cat([sum(term.abs() for term in terms) for _, terms in rows], dim=1)
    return moved, 8 * sizes + moved.abs()


def check(u, score, a=A, b=B, n=N):
    expected, bound = expected_step(u, score, a, b, n)
    assert cld_step(u, score, a, b, n, **HERE) is u
    assert_within(u, expected, ROUNDING[u.dtype] * bound)


def half_step(h):
    """R(h), by which the free part of the reverse diffusion moves (x, v), and the covariance of its noise."""
    g = 1 / GAMMA
    r = math.exp(-2 * g * h) * torch.tensor([[1 + 2 * g * h, -4 * g * g * h], [h, 1 - 2 * g * h]], dtype=torch.float64)
    still = torch.diag(torch.tensor([1.0, M], dtype=torch.float64))
    return r, still - r @ still @ r.T


def at(x, v):
    return torch.tensor([x, v], dtype=torch.float64).view(1, 2, 1, 1)


def test_the_samplers_by_hand(backend):
    """One step of each from (0.5, -0.2) with dt = 0.1, beta = 4 and the score -v/M - 0.3, without the noise."""
    dt, still = 0.1, (0.0, 0.0, 0.0)
    k = 2 * GAMMA * BETA * dt

    def score(u):
        return -u[:, 1:] / M - 0.3

    u = at(0.5, -0.2)
    em = (1, -dt * BETA / M, dt * BETA, 1 + dt * GAMMA * BETA / M)
    torch.testing.assert_close(cld_step(u, score(u), em, (0, k), still, seed=0, step=0), at(0.82, 0.08))
    half, covariance = half_step(BETA * dt / 2)
    u = cld_step(at(0.5, -0.2), None, half.flatten(), (0, 0), still, seed=0, step=0)
    torch.testing.assert_close(u, at(0.57647524, -0.01340640), rtol=0, atol=5e-9)
    kick = torch.tensor([[1, 0], [0, 1 + k / M]], dtype=torch.float64)
    pushed = cld_step(u.clone(), score(u), kick.flatten(), (0, k), still, seed=0, step=0)
    torch.testing.assert_close(pushed, at(0.57647524, -0.25340640), rtol=0, atol=5e-9)
    merged = (half @ kick).flatten(), k * half[:, 1]
    torch.testing.assert_close(
        cld_step(u, score(u), *merged, still, seed=0, step=0), at(0.67688279, -0.02463345), rtol=0, atol=5e-9
    )
    wanted = torch.tensor([[0.0474226, -0.07189263], [-0.07189263, 0.19158723]], dtype=torch.float64)
    torch.testing.assert_close(covariance, wanted, rtol=0, atol=5e-9)


def test_half_steps_merge_and_keep_their_law(backend):
    """From u ~ diag(1, M), which the free part leaves as it is: the covariance after one step, of 200,000 pairs."""
    (r, covariance), (first, _), (second, _) = half_step(0.5), half_step(0.3), half_step(0.2)
    torch.testing.assert_close(second @ first, r)
    root = torch.linalg.cholesky(covariance)
    u = torch.cat(normals((2000, 100), seed=3, step=1), dim=1) * torch.tensor([1.0, M**0.5]).repeat_interleave(100)
    cld_step(u, None, r.flatten(), (0, 0), (root[0, 0], root[1, 0], root[1, 1]), seed=4, step=1)
    x, v = u.double().chunk(2, dim=1)
    n = x.numel()
    for found, wanted, variance in (((x * x), 1.0, 2.0), ((x * v), 0.0, M), ((v * v), M, 2 * M * M)):
        assert abs(found.mean().item() - wanted) < 4 * (variance / n) ** 0.5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", STATES)
def test_sizes(backend, shape, dtype):
    check(*inputs(shape, dtype))
    check(inputs(shape, dtype)[0], None, b=(0, 0))


@pytest.mark.parametrize("a", [(1, 0, 0, 1), (0, 1, 0, 0), (0, 0, 1, 0), (2, 0, 0, -3)])
@pytest.mark.parametrize("b", [(0, 0), (1, 0), (0, -2)])
@pytest.mark.parametrize("n", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, -2, 0), (2, 0, 0.5)])
def test_every_coefficient(backend, a, b, n):
    check(*inputs(IMAGE), a, b, n)


@pytest.mark.parametrize("score_layout", LAYOUTS)
@pytest.mark.parametrize("u_layout", LAYOUTS)
def test_memory_formats(backend, u_layout, score_layout):
    u, score = inputs(IMAGE, torch.float32, u_layout, score_layout)
    strides = u.stride()
    check(u, score)
    assert u.stride() == strides


def test_a_view_is_changed_where_it_lies_and_nowhere_else(backend):
    wide = torch.full((3, 6, 6, 14), 7.0)
    u, score = inputs(IMAGE)
    check(wide[..., ::2].copy_(u), score)
    assert (wide[..., 1::2] == 7.0).all() and not torch.equal(wide[..., ::2], u)


def test_small_steps_are_not_lost_in_the_coefficients(backend):
    """A_xx = 1 - 1e-7 would be 1 - 1.19e-7 in float32. Each x' is rounded by up to 2^-24, at random thanks to the
    noise: 4 standard errors of the mean of 400,000 are below 3e-10."""
    u = torch.cat([1 + noise.uniform((4, 100_000), seed=1), torch.zeros(4, 100_000)], dim=1)
    x, (z, _) = u[:, :100_000].clone(), normals((4, 100_000))
    cld_step(u, None, (1 - 1e-7, 0, 0, 1), (0, 0), (2.0**-13, 0, 0), **HERE)
    drift = (u[:, :100_000].double() - x.double() - 2.0**-13 * z.double()) / x.double()
    assert drift.mean().item() == pytest.approx(-1e-7, abs=3e-10)


@pytest.mark.parametrize("shape", [(2, 3), IMAGE, LARGE], ids=str)
def test_the_noise_is_that_of_its_two_streams(backend, shape):
    z_x, z_v = normals(shape)
    zero, one = torch.zeros(both(shape)), (1, 0, 0, 1)
    for n, wanted in (((1, 0, 0), (z_x, 0 * z_x)), ((0, 1, 0), (0 * z_x, z_x)), ((0, 0, 1), (0 * z_x, z_v))):
        u = cld_step(zero.clone(), None, one, (0, 0), n, **HERE)
        assert torch.equal(u, torch.cat(wanted, dim=1))


@pytest.mark.parametrize(
    "n, streams",
    [((0, 0, 0), []), ((0, 0, 1), [noise.CLD_V]), ((1, 0, 0), [noise.CLD_X]), ((0, 1, 0), [noise.CLD_X])],
)
def test_noise_without_a_coefficient_is_not_drawn(monkeypatch, n, streams):
    drawn, normal = [], reference.philox_normal
    monkeypatch.setattr(reference, "philox_normal", lambda *a, **k: drawn.append(k["stream"]) or normal(*a, **k))
    reference.cld_step(*inputs(IMAGE), A, B, n, **HERE)
    assert drawn == streams


@pytest.mark.parametrize("change", [dict(seed=10), dict(step=6), dict(first=4)])
def test_every_coordinate_moves_the_noise(backend, change):
    x, y = (cld_step(torch.zeros(2, 16), None, A, (0, 0), N, **where) for where in (HERE, {**HERE, **change}))
    assert (x != y).sum() > 24


@pytest.mark.parametrize("dtype", STATES)
def test_no_score_is_a_score_of_zero(backend, dtype):
    for layout in ("contiguous", "channels_last"):
        u, score = inputs(IMAGE, dtype, layout)
        wanted = cld_step(u.clone(), torch.zeros_like(score), A, B, N, **HERE)
        assert torch.equal(cld_step(u, None, A, (0, 0), N, **HERE), wanted)


def test_a_non_finite_score_is_not_hidden(backend):
    u, score = torch.zeros(1, 12), torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0, 1.0, 1.0]])
    cld_step(u, score, A, (1, 2), N, **HERE)
    for half in u.chunk(2, dim=1):
        assert half[0, 0].isnan() and half[0, 1] == float("inf") and half[0, 2] == -float("inf")
        assert half[0, 3:].isfinite().all()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_thread_counts_give_the_same_bits(layout):
    u, score = inputs(LARGE, torch.float32, layout)
    same_for_thread_counts(lambda: cld_step(u.clone(), score, A, B, N, **HERE))


def test_batches_and_memory_formats_give_the_same_bits(backend):
    u, score = inputs(LARGE)
    whole = cld_step(u.clone(), score, A, B, N, seed=4, step=2, first=10)
    parts = [
        cld_step(u[rows].clone(), score[rows], A, B, N, seed=4, step=2, first=10 + rows.start)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(cld_step(arrange(u, "channels_last"), score, A, B, N, seed=4, step=2, first=10), whole)


def test_autograd_sees_the_write(backend):
    """A tensor saved for a backward pass and then stepped over makes that pass fail."""
    weight, u = torch.ones(2, 4, requires_grad=True), torch.ones(2, 4)
    loss = (weight * u).sum()
    version = u._version
    cld_step(u, None, A, (0, 0), N, **HERE)
    assert u._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_modes_and_threads_of_python(backend):
    def step():
        return cld_step(*inputs(IMAGE), A, B, N, **HERE)

    expected = step()
    assert torch.equal(in_new_thread(step), expected)
    with torch.inference_mode():
        assert torch.equal(step(), expected)
    with torch.no_grad():
        u, score = (t.requires_grad_() for t in inputs(IMAGE))
        assert torch.equal(cld_step(u, score, A, B, N, **HERE), expected)


@pytest.mark.parametrize("case", ["plain", "no score", "channels_last", "float64", "strided"])
def test_opcheck(case):
    dtype = torch.float64 if case == "float64" else torch.float32
    layout = {"channels_last": "channels_last", "strided": "columns"}.get(case, "contiguous")
    u, score = inputs(IMAGE, dtype, layout)
    with_score = (score, list(A), list(B)) if case != "no score" else (None, list(A), [0.0, 0.0])
    torch.library.opcheck(torch.ops.langevin_ext.cld_step.default, (u, *with_score, list(N), 9, 5, 3))


def test_compiles_in_one_graph(backend):
    def chain(u, score):
        for step in range(3):
            cld_step(u, score - u[:, 3:], A, B, N, seed=7, step=step)
        return u

    expected = chain(*inputs(IMAGE))
    torch._dynamo.reset()
    u, score = inputs(IMAGE)
    result = torch.compile(chain, backend="aot_eager", fullgraph=True)(u, score)
    assert torch.equal(u, expected) and torch.equal(result, expected)


def test_fake_tensors_have_no_memory_and_need_none(backend):
    with torch._subclasses.FakeTensorMode():
        u = torch.empty(both(IMAGE))
        assert cld_step(u, torch.empty(IMAGE), A, B, N, **HERE) is u


@pytest.mark.cuda
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("n", [N, (0, 0, 1)])
def test_cuda_gives_the_bits_of_the_cpu(layout, n):
    u, score = inputs(LARGE, torch.float32, layout)
    for s, b in ((score, B), (None, (0, 0))):
        on_gpu = cld_step(u.cuda(), None if s is None else s.cuda(), A, b, n, **HERE)
        assert torch.equal(on_gpu.cpu(), cld_step(u.clone(), s, A, b, n, **HERE))


U, S = torch.zeros(2, 6), torch.zeros(2, 3)
REQUIRES = "must not require grad, the step is in place; call it under torch.no_grad\\(\\)"


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(u=None), TypeError, "u must be a tensor, got NoneType"),
        (dict(u=U.half()), TypeError, "u must be float32, float64, got float16"),
        (dict(u=torch.zeros(2)), ValueError, r"u must have shape \(samples, ...\), got \(2,\)"),
        (dict(u=S), ValueError, r"u must have shape \(samples, 2 C, ...\), x then v, got \(2, 3\)"),
        (dict(u=U.clone().requires_grad_()), ValueError, f"u {REQUIRES}"),
        (dict(score=[1.0]), TypeError, "score must be a tensor, got list"),
        (dict(score=S.double()), TypeError, "score must be float32, got float64"),
        (dict(u=U.double()), TypeError, "score must be float64, got float32"),
        (dict(score=U), ValueError, r"score must have shape \(2, 3\) to go with u, got \(2, 6\)"),
        (dict(score=S.to("meta")), ValueError, "score must be on u's device cpu, got meta"),
        (dict(score=S.clone().requires_grad_()), ValueError, f"score {REQUIRES}"),
        (dict(score=None), ValueError, r"b must be \(0, 0\) without a score, got \[-0.1, 0.7\]"),
        (dict(a=1.0), TypeError, "a must be 4 numbers, got 1.0"),
        (dict(a=("x", 0, 0, 0)), TypeError, r"a must be 4 numbers, got \('x', 0, 0, 0\)"),
        (dict(a=(1, 0, 0)), ValueError, r"a must be 4 finite numbers, got \[1.0, 0.0, 0.0\]"),
        (dict(a=(1, 0, 0, float("nan"))), ValueError, r"a must be 4 finite numbers, got \[1.0, 0.0, 0.0, nan\]"),
        (dict(b=(0, float("inf"))), ValueError, r"b must be 2 finite numbers, got \[0.0, inf\]"),
        (dict(n=(1, 2)), ValueError, r"noise must be 3 finite numbers, got \[1.0, 2.0\]"),
        (dict(n=(-1, 0, 1)), ValueError, r"noise must have N_xx >= 0 and N_vv >= 0, got \[-1.0, 0.0, 1.0\]"),
        (dict(n=(1, 0, -1)), ValueError, r"noise must have N_xx >= 0 and N_vv >= 0, got \[1.0, 0.0, -1.0\]"),
    ],
)
def test_mistakes_are_named(change, error, message):
    arguments = dict(u=U, score=S, a=A, b=B, n=N) | change
    with pytest.raises(error, match=f"^cld_step: {message}$"):
        cld_step(*arguments.values(), seed=1, step=2)


def test_bad_coordinates_are_named():
    check_bad_coordinates("cld_step", lambda **where: cld_step(U.clone(), S, A, B, N, **where), stream=False)
    huge = torch.zeros(1, 1).expand(1, 2**35)
    with pytest.raises(ValueError, match=r"^cld_step: a sample must have fewer than 2\^34 elements, got 1717986"):
        cld_step(huge, None, A, (0, 0), N, seed=1, step=2)
