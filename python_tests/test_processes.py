"""The forward process of critically-damped Langevin diffusion against its formulas at 120 digits and printed values."""

import math

import mpmath
import pytest
import torch

from langevin_ext.processes import CriticallyDamped

# t: S_xx, S_xv, S_vv given x_0, l_t hybrid and sampled, the mean matrix; computed independently, gamma .04, M .25
TABLE = {
    0.001: (
        (3.1938928e-6, 2.19184837e-4, 1.755762986e-2),
        (19.93709864, 22.40540412),
        (0.99996817, 0.01587251, -0.00396813, 0.98409566),
    ),
    0.1: (
        (0.22181006104, 0.12985984037, 0.21575835055),
        (2.67518145, 2.68598677),
        (0.80879214, 0.71892634, -0.17973159, 0.08986579),
    ),
    0.5: (
        (0.98646072834, 0.0052868910157, 0.24793355021),
        (2.00843217, 2.00855803),
        (0.09157819, 0.14652511, -0.03663128, -0.05494692),
    ),
    1.0: (
        (0.99998397049, 7.0762e-6, 0.24999687602),
        (2.00001250, 2.00001272),
        (0.00301916, 0.00536740, -0.00134185, -0.00234824),
    ),
}


def expanded(b, friction, r, w):
    """The covariance as it is printed: sums that cancel, at as many digits as mpmath has been told."""
    g, r = 1 / mpmath.mpf(friction), mpmath.mpf(r)
    m, friction = mpmath.exp(-4 * b * g), mpmath.mpf(friction)
    xx = m * (r + 1 / m - 1 + 4 * b * g * (r - 1) + 4 * b**2 * g**2 * (r - 2) + 16 * g**4 * b**2 * w)
    xv = m * (-r * b + 4 * g**2 * b * w - 2 * g * b**2 * (r - 2) - 8 * g**3 * b**2 * w)
    vv = m * (friction**2 * (1 / m - 1) / 4 + friction * b - 4 * g * b * w + 4 * g**2 * b**2 * w + w + b**2 * (r - 2))
    return xx, xv, vv, xx * vv - xv**2


@pytest.mark.parametrize("t", TABLE)
def test_values(t):
    moments, scales, matrix = TABLE[t]
    process = CriticallyDamped(numerical_eps=0.0)
    # the digits printed: half a unit of the last one, of which the shortest entries have five
    assert [one.item() for one in process.covariance(t)[:3]] == pytest.approx(moments, rel=2e-5 if t == 1 else 2e-8)
    assert [process.score_scale(t, v).item() for v in ("hybrid", "sampled")] == pytest.approx(scales, rel=5e-9)
    assert [one.item() for one in process.mean_matrix(t)] == pytest.approx(matrix, abs=5e-9)


@pytest.mark.parametrize("mass", [0.25, 1.0, 0.04])
@pytest.mark.parametrize("velocity", ["hybrid", "sampled"])
@pytest.mark.parametrize("r", [0.0, 0.01, 0.25, 1.0, 9.0])
def test_moments_are_exact_from_the_first_moment_on(mass, velocity, r):
    process = CriticallyDamped(mass=mass)
    w = mpmath.mpf(process.gamma) * mpmath.mpf(mass) if velocity == "hybrid" else mpmath.mpf(0)
    with mpmath.workdps(120):  # the determinant loses 4 log10(1/t) digits in these sums, from t = 1e-12
        for exponent in range(-24, 3):
            t = 10 ** (exponent / 2)
            expected = expanded(4 * mpmath.mpf(t), process.friction, r, w)
            s = process.covariance(t, velocity, r)
            units = [expected[0], mpmath.sqrt(expected[0] * expected[2]), expected[2], expected[3]]  # xv changes sign
            for ours, theirs, unit in zip(s, expected, units, strict=True):
                # ten roundings or so; y itself has one, which the determinant takes to the fourth power
                assert float(abs(mpmath.mpf(ours.item()) - theirs) / unit) < 3e-15, (t, velocity, r)


def test_shape_and_the_limit_at_zero():
    process = CriticallyDamped()
    t = torch.tensor([[0.1], [0.5]])
    s = process.covariance(t)
    assert all(one.shape == t.shape and one.dtype == torch.float64 for one in s)
    torch.testing.assert_close(s.xx[1, 0], process.covariance(0.5).xx)
    assert torch.equal(process.covariance(0.0, "sampled").vv, torch.zeros((), dtype=torch.float64))
    assert process.covariance(0.0).vv.item() == 0.04 * 0.25


def test_largest_score_scales():
    t = torch.logspace(-9, 0, 20001, dtype=torch.float64)
    for eps, largest, at in ((1e-9, 41.823, 1.43e-4), (1e-6, 13.293, 1.43e-3)):
        process = CriticallyDamped(numerical_eps=eps)
        scales = process.score_scale(t)
        assert scales.max().item() == pytest.approx(largest, rel=2e-5)
        assert t[scales.argmax()].item() == pytest.approx(at, rel=5e-3)  # three digits
        assert process.score_scale(1e-15, "sampled").item() == pytest.approx(1 / math.sqrt(eps), rel=1e-4)
    free = CriticallyDamped(numerical_eps=0.0)
    assert free.score_scale(1e-4).item() == pytest.approx(61.45, abs=5e-3)
    assert free.score_scale(1e-4, "sampled").item() == pytest.approx(70.72, abs=5e-3)
    ratio = (free.score_scale(t) / free.score_scale(t, "sampled"))[0].item()
    assert ratio == pytest.approx(math.sqrt(3) / 2, rel=1e-6)  # both diverge, the limit of sqrt(3/2) / sqrt(2)
    assert free.score_scale(t)[0].item() == pytest.approx(math.sqrt(3 / (2 * 4e-9)), rel=1e-6)
    assert torch.isfinite(free.score_scale(t)).all()


def test_cholesky_of_the_worked_example():
    # t = .3: L = (.92701506; .05053888, .48137689), of 8 digits, 1e-9 of numerical_eps apart
    lower = [one.item() for one in CriticallyDamped().cholesky(0.3)]
    assert lower == pytest.approx((0.92701506, 0.05053888, 0.48137689), abs=6e-9)
    process, t = CriticallyDamped(numerical_eps=1e-6), torch.logspace(-9, 0, 100, dtype=torch.float64)
    xx, vx, vv = process.cholesky(t)
    s = process.covariance(t)
    torch.testing.assert_close(xx * xx, s.xx + 1e-6)
    torch.testing.assert_close(xx * vx, s.xv)
    torch.testing.assert_close(vx * vx + vv * vv, s.vv + 1e-6)
    torch.testing.assert_close(1 / vv, process.score_scale(t))


@pytest.mark.parametrize("mass", [0.25, 1.0])
def test_reverse_flow(mass):
    process = CriticallyDamped(mass=mass)

    def flow(b):
        a, (xx, vx, vv) = process.reverse_flow(b)
        lower = torch.tensor([[xx, 0.0], [vx, vv]], dtype=torch.float64)
        return torch.tensor(a, dtype=torch.float64).view(2, 2), lower @ lower.T

    (a, n), (a3, n3), (a2, n2) = flow(0.5), flow(0.3), flow(0.2)
    # exact identities: a few roundings
    torch.testing.assert_close(a3 @ a2, a, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(a3 @ n2 @ a3.T + n3, n, rtol=1e-13, atol=1e-15)
    prior = torch.diag(torch.tensor([1.0, mass], dtype=torch.float64))
    torch.testing.assert_close(a @ prior @ a.T + n, prior, rtol=1e-14, atol=1e-14)
    # against the equation itself: (A(b) - 1) / b is the drift per unit of beta, and N / b the noise, up to b
    a, n = flow(1e-7)
    drift = torch.tensor([[0.0, -1 / mass], [1.0, -process.friction / mass]], dtype=torch.float64)
    torch.testing.assert_close((a - torch.eye(2, dtype=torch.float64)) / 1e-7, drift, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        n / 1e-7, torch.diag(torch.tensor([0.0, 2 * process.friction]).double()), rtol=0, atol=1e-5
    )
    assert process.reverse_flow(0.0) == ((1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0))  # not NaN


def test_linear_beta():
    process = CriticallyDamped(beta=(0.1, 6.9))
    assert process.beta(0.5).item() == pytest.approx(0.1 + 3.45)
    assert process.integral(0.5).item() == pytest.approx(0.05 + 6.9 / 8)
    same = CriticallyDamped(beta=1.0)
    for ours, theirs in zip(process.covariance(0.5), same.covariance(0.05 + 6.9 / 8), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_config_remakes_it():
    process = CriticallyDamped((0.1, 6.9), 1.0, 0.1, 1e-6)
    assert CriticallyDamped(**process.config()).config() == process.config()
    assert CriticallyDamped(friction=1.0).friction == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1}, "argument beta must be a positive number or \\(beta0, beta1\\), both at least 0"),
        ({"beta": (0, 0)}, "argument beta must be"),
        ({"beta": (1, 2, 3)}, "argument beta must be"),
        ({"mass": 0}, "argument mass must be positive and finite, got 0"),
        ({"gamma": math.inf}, "argument gamma must be positive and finite, got inf"),
        ({"numerical_eps": -1e-9}, "argument numerical_eps must be at least 0, got -1e-09"),
        ({"friction": 2.0}, "argument friction must be 2 sqrt\\(mass\\) = 1, at which the closed forms hold, got 2.0"),
    ],
)
def test_constants_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=f"CriticallyDamped: {message}"):
        CriticallyDamped(**arguments)


def test_arguments_out_of_range():
    process = CriticallyDamped()
    with pytest.raises(ValueError, match="argument t must be at least 0, got -0.5"):
        process.covariance(-0.5)
    with pytest.raises(ValueError, match="argument velocity must be 'hybrid' or 'sampled', got 'both'"):
        process.covariance(0.5, "both")
    with pytest.raises(ValueError, match="argument data_variance must be at least 0, got -1"):
        process.covariance(0.5, data_variance=-1)
