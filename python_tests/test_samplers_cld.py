"""The samplers of critically-damped Langevin diffusion against exact laws, recursions and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from test_sampling_resume import Interrupt, every_step  # noqa: F401 (a fixture)

import langevin_ext
from langevin_ext import noise
from langevin_ext.processes import CriticallyDamped
from langevin_ext.samplers.cld import CriticalRow, cld_em, cld_ode, cld_sscs, time_grid
from langevin_ext.scores.critical import CriticalGaussian, CriticalMixture

BUILDERS = {"cld-em": cld_em, "cld-sscs": cld_sscs, "cld-ode": cld_ode}
NUMBERS = (20, 50, 100, 200, 500, 1000)
# variance of the data, times: the variance of x after so many evaluations, computed independently
VARIANCES = {
    (0.25, "linear"): {
        "cld-em": (0.481970, 0.280062, 0.261316, 0.255064, 0.251924, 0.250954),
        "cld-sscs": (0.195024, 0.227979, 0.239108, 0.244601, 0.247860, 0.248940),
    },
    (0.25, "quadratic"): {
        "cld-em": (0.303499, 0.266202, 0.257534, 0.253649, 0.251441, 0.250724),
        "cld-sscs": (0.229265, 0.240972, 0.245383, 0.247673, 0.249073, 0.249544),
    },
    (0.01, "quadratic"): {
        "cld-em": (0.018887, 0.011208, 0.010448, 0.010195, 0.010072, 0.010036),
        "cld-sscs": (0.005147, 0.007548, 0.008701, 0.009333, 0.009730, 0.009865),
    },
    (1.0, "quadratic"): {
        "cld-em": (1.134977, 1.046742, 1.022462, 1.011046, 1.004407, 1.002227),
        "cld-sscs": (0.983603, 0.994029, 0.997149, 0.998633, 0.999498, 0.999782),
    },
}


def rows_of(scheme, model, **options):
    return BUILDERS[scheme]([model], **options)[1].rows


def reverse_flow(process, b):
    return tuple([entry.item() for entry in entries] for entries in process.reverse_flow(b))


def law(rows, process, variance):
    """Covariance of (x, v) after all rows, for data N(0, variance) and the exact score -(S^-1 u)_v."""
    cov = np.diag([1.0, process.mass])
    s = process.covariance(torch.tensor([row.level for row in rows], dtype=torch.float64), data_variance=variance)
    slopes = (torch.stack([s.xv, -s.xx], 1) / s.det[:, None]).numpy()
    for row, slope in zip(rows, slopes, strict=True):
        step = np.array(row.a).reshape(2, 2) + np.outer(row.b, slope)
        lower = np.array([[row.noise[0], 0.0], row.noise[1:]])
        cov = step @ cov @ step.T + lower @ lower.T
    return cov


@pytest.mark.parametrize("scheme", ["cld-em", "cld-sscs"])
@pytest.mark.parametrize("case", VARIANCES)
def test_variance_after_n_evaluations(case, scheme):
    variance, striding = case
    model = CriticalGaussian(0.0, variance)
    for n, expected in zip(NUMBERS, VARIANCES[case][scheme], strict=True):
        rows = rows_of(scheme, model, n_evals=n, striding=striding)
        assert sum(row.evaluations for row in rows) == n
        assert law(rows, model.process, variance)[0, 0] == pytest.approx(expected, abs=5.1e-7)  # six decimals


def test_whole_law_after_100_evaluations():
    model = CriticalGaussian(0.0, 0.25)
    expected = {"cld-em": (0.25753423, 3.5247e-4, 6.54835e-3), "cld-sscs": (0.245383459, 2.596e-5, 5.751387e-3)}
    for scheme, values in expected.items():
        cov = law(rows_of(scheme, model, n_evals=100), model.process, 0.25)
        assert (cov[0, 0], cov[0, 1], cov[1, 1]) == pytest.approx(values, rel=2e-4)  # 2.596 has four digits


@pytest.mark.parametrize("scheme", ["cld-em", "cld-sscs"])
def test_samples_have_that_law(scheme):
    # 64,000 numbers: the variance is good to 0.0014, and EM and SSCS are .0372 and .0207 off from .25 with 20 and 50
    for n, expected in zip(NUMBERS[:2], VARIANCES[0.25, "quadratic"][scheme], strict=False):
        model = CriticalGaussian(0.5, 0.25, shape=(1, 8, 8))
        x = langevin_ext.sample(model, scheme, 1000, seed=n, n_evals=n, progress=False)
        count = x.numel()
        assert abs(x.var().item() - expected) < 4 * expected * (2 / count) ** 0.5
        # the mean contracts as in the recursion of a single mean; near the data it is that of the data up to 1e-2
        assert abs(x.mean().item() - 0.5) < 0.015


@pytest.mark.parametrize("striding", ["linear", "quadratic"])
def test_fractions_and_widths_of_a_mixture(striding):
    # .3 N(-1, .1^2) + .7 N(1, .1^2): fraction and width of the right mode from 100,000 independent samples, n = 20
    expected = {
        ("cld-em", "linear"): (0.6585, 0.548),
        ("cld-em", "quadratic"): (0.6774, 0.138),
        ("cld-sscs", "linear"): (0.6729, 0.347),
        ("cld-sscs", "quadratic"): (0.6793, 0.075),
    }
    model, n = CriticalMixture([[-1.0], [1.0]], [0.3, 0.7], 0.01), 20_000
    for scheme in ("cld-em", "cld-sscs"):
        x = langevin_ext.sample(model, scheme, n, n_evals=20, striding=striding, progress=False).flatten()
        share, width = expected[scheme, striding]
        error = (share * (1 - share) * (1 / n + 1 / 100_000)) ** 0.5
        assert abs((x > 0).double().mean().item() - share) < 4 * error
        # half a unit of the third digit, and the error of a standard deviation (of tails no wider than the normal's)
        assert abs(x[x > 0].std().item() - width) < 5e-4 + 4 * width * (1 / (2 * share * n)) ** 0.5


def test_one_step_of_each_scheme():
    # u = (.5, -.2), dt = .1, beta = 4, s = -v/M - .3, without noise
    process = CriticallyDamped()
    half, lower = reverse_flow(process, 0.2)

    def apply(a, x, v):
        return a[0] * x + a[1] * v, a[2] * x + a[3] * v

    x, v = apply(half, 0.5, -0.2)
    assert (x, v) == pytest.approx((0.57647524, -0.01340640), abs=5e-9)  # eight decimals
    kick = 2 * process.friction * 4 * 0.1
    v += kick * ((-4 * v - 0.3) + 4 * v)
    assert (x, v) == pytest.approx((0.57647524, -0.25340640), abs=5e-9)
    assert apply(half, x, v) == pytest.approx((0.67688279, -0.02463345), abs=5e-9)
    cov = lower[0] ** 2, lower[0] * lower[1], lower[1] ** 2 + lower[2] ** 2
    assert cov == pytest.approx((0.0474226, -0.07189263, 0.19158723), abs=5e-8)  # seven decimals
    # the same step as the builder lays it out: opening, and evaluation with the closing half
    model = CriticalGaussian(0.0, 1.0)
    opening, step = rows_of("cld-sscs", model, n_evals=1, t_end=0.1, denoise=False)
    assert opening.evaluations == 0 and step.level == 1.0
    x, v = apply(opening.a, 0.5, -0.2)
    s = -4 * v - 0.3
    x, v = apply(step.a, x, v)
    assert (x + step.b[0] * s, v + step.b[1] * s) == pytest.approx((0.67688279, -0.02463345), abs=5e-9)
    (row,) = rows_of("cld-em", model, n_evals=1, t_end=0.1, denoise=False)
    x, v = apply(row.a, 0.5, -0.2)
    assert (x, v + row.b[1] * (0.8 - 0.3)) == pytest.approx((0.82, 0.08), abs=1e-12)
    assert row.noise == pytest.approx((0, 0, 0.89442719), abs=5e-9)


@pytest.mark.parametrize("striding", ["linear", "quadratic"])
def test_split_flows_compose_for_beta_that_is_not_constant(striding):
    # with the score of the prior, s = -v/M, SSCS is exact: all of it is the flow over the whole integral of beta. Half
    # steps with beta at the beginning of a step, as released, would end elsewhere.
    process = CriticallyDamped(beta=(0.1, 6.9))
    model = CriticalGaussian(0.0, 1.0, process)
    total, cov = np.eye(2), np.zeros((2, 2))
    for row in rows_of("cld-sscs", model, n_evals=7, striding=striding, denoise=False):
        step = np.array(row.a).reshape(2, 2) + np.outer(row.b, [0.0, -1 / process.mass])
        lower = np.array([[row.noise[0], 0.0], row.noise[1:]])
        total, cov = step @ total, step @ cov @ step.T + lower @ lower.T
    whole, lower = reverse_flow(process, (process.integral(1.0) - process.integral(0.001)).item())
    lower = np.array([[lower[0], 0.0], lower[1:]])
    np.testing.assert_allclose(total, np.array(whole).reshape(2, 2), atol=1e-14)  # a few roundings
    np.testing.assert_allclose(cov, lower @ lower.T, atol=1e-14)


def test_second_half_step_of_linear_beta():
    # one step from t = 0 to .5: the halves end at tau = .75 and .5
    process = CriticallyDamped(beta=(0.1, 6.9))
    opening, step = rows_of("cld-sscs", CriticalGaussian(0.0, 1.0, process), n_evals=1, t_end=0.5, denoise=False)
    first = 0.1 * 0.25 + 6.9 / 2 * (1 - 0.75**2)
    second = 0.1 * 0.25 + 6.9 / 2 * (0.75**2 - 0.5**2)
    assert opening.a == pytest.approx(reverse_flow(process, first)[0], rel=1e-12)
    assert step.noise == pytest.approx(reverse_flow(process, second)[1], rel=1e-12)
    kick = 2 * process.friction * 7.0 * 0.5  # beta(1) = 7
    assert step.b == pytest.approx([reverse_flow(process, second)[0][i] * kick for i in (1, 3)], rel=1e-12)


def exact_score(rows, model):
    """The same score as the model's, from coefficients computed for all times of some rows at once."""
    taus = sorted({tau for row in rows for tau in [row.level, *(point[0] for point in getattr(row, "stages", ()))]})
    s = model.process.covariance(torch.tensor(taus, dtype=torch.float64), data_variance=model.variance)
    slopes = dict(zip(taus, torch.stack([s.xv / s.det, s.xx / s.det], 1).tolist(), strict=True))
    return lambda u, tau: slopes[tau][0] * u[:, :1] - slopes[tau][1] * u[:, 1:]


@pytest.mark.parametrize(
    ("variance", "at_end", "denoised"),
    [(1.0, 0.99994338, 1.00006782), (0.25, 0.24998731, 0.25001654), (0.01, 0.01000283, 0.01000158)],
)
def test_probability_flow(variance, at_end, denoised):
    # eight decimals; 400 steps do what the printed values took 4000 for, as the order is four
    model = CriticalGaussian(0.0, variance)
    rows = rows_of("cld-ode", model, n_evals=1601)
    assert sum(row.evaluations for row in rows) == 1601
    u, score = torch.eye(2, dtype=torch.float64).view(2, 2, 1, 1), exact_score(rows, model)
    for row in rows[:-1]:
        row.update(u, score, seed=0, first=0)
    after = u.clone()
    rows[-1].update(after, score, seed=0, first=0)
    for state, expected in ((u, at_end), (after, denoised)):
        x = state[:, 0].flatten()
        value = (x[0] ** 2 + 0.25 * x[1] ** 2).item()  # the start has the covariance diag(1, M)
        assert value == pytest.approx(expected, abs=2e-8)


def test_order_of_the_probability_flow():
    model, ends = CriticalGaussian(0.0, 0.25), []
    for steps in (20, 40, 320):
        rows = rows_of("cld-ode", model, n_evals=4 * steps, denoise=False)
        u, score = torch.eye(2, dtype=torch.float64).view(2, 2, 1, 1), exact_score(rows, model)
        for row in rows:
            row.update(u, score, seed=0, first=0)
        ends.append(u)
    coarse, fine = ((u - ends[-1]).abs().max().item() for u in ends[:-1])
    assert 10 < coarse / fine < 20  # fourth order: 16 up to terms of the next order; the third has 8, the fifth 32


def test_the_times():
    expected = (0, 0.35964, 0.63936, 0.83916, 0.95904, 0.999)
    assert time_grid("cld-em", 6, True, "quadratic", 0.999) == pytest.approx(expected, abs=1e-12)
    assert time_grid("cld-em", 5, False, "quadratic", 0.999) == pytest.approx(expected, abs=1e-12)
    assert time_grid("cld-ode", 9, True, "linear", 0.9, each=4) == pytest.approx([0, 0.45, 0.9])


@pytest.mark.parametrize("scheme", BUILDERS)
def test_start_end_and_plan(scheme):
    model = CriticalGaussian(0.0, 1.0, CriticallyDamped(mass=0.5), shape=(1, 2, 3))
    plan = langevin_ext.plan(model, scheme, 5, n_evals=41)
    assert plan.evaluations == {"2x3": 41}
    assert "add a velocity of variance 0.5" in str(plan) and "41 evaluations, tau 1 to 0.001, then denoised" in str(
        plan
    )
    start, run, end = plan.stages
    assert (start.copies, run.copies, end.copies) == (2, 2, 1)
    x = noise.normal((3, 1, 2, 3), 7, first=4, stream=noise.INIT)
    u = start.apply(x, None, seed=7, first=4)
    v = noise.normal((3, 1, 2, 3), 7, step=2, first=4, stream=noise.INIT)
    assert torch.equal(u, torch.cat([x, math.sqrt(0.5) * v], 1))
    assert torch.equal(end.apply(u, None, seed=0, first=0), x) and str(end) == "drop the velocity"
    assert len({row.step for row in run.rows}) == len(run.rows)  # no noise twice
    plain = langevin_ext.plan(model, scheme, 5, n_evals=40, denoise=False)
    assert plain.evaluations == {"2x3": 40} and "denoised" not in str(plain)


def test_default_start_is_normal():
    model = CriticalGaussian(0.0, 1.0)
    settings = {"n": 4, "seed": 3, "n_evals": 20, "progress": False}
    start = noise.normal((4, 1, 1, 1), 3, stream=noise.INIT)
    x = langevin_ext.sample(model, "cld-em", **settings)
    assert torch.equal(x, langevin_ext.sample(model, "cld-em", init=start, **settings))


@pytest.mark.parametrize("scheme", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_and_parts_give_the_same_bits(scheme, dtype):
    model = CriticalMixture([[-1.0, 0.0, 0.5], [1.0, 1.0, 0.0]], [0.3, 0.7], 0.1)
    settings = {"seed": 5, "n_evals": 21, "progress": False, "dtype": dtype}
    whole = langevin_ext.sample(model, scheme, 16, batch_size=16, **settings)
    assert whole.dtype == dtype
    assert torch.equal(whole, langevin_ext.sample(model, scheme, 16, batch_size=3, **settings))
    parts = [langevin_ext.sample(model, scheme, n, first=k, **settings) for n, k in ((7, 0), (9, 7))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, langevin_ext.sample(model, scheme, 16, **settings | {"seed": 6}))


@pytest.mark.parametrize("scheme", BUILDERS)
@pytest.mark.parametrize("at", [1, 5, 8])
def test_resume_is_bit_equal(tmp_path, every_step, scheme, at):  # noqa: F811
    model, seen = CriticalGaussian(0.2, 0.3, shape=(1, 2, 2)), []
    settings = {"seed": 5, "n_evals": 13, "progress": False, "batch_size": 2}
    plain = langevin_ext.sample(model, scheme, 5, **settings)

    def stop(now):
        seen.append(now)
        if len(seen) == at:
            raise Interrupt

    with pytest.raises(Interrupt):
        langevin_ext.sample(model, scheme, 5, checkpoint=tmp_path / "run", callback=stop, **settings)
    assert torch.equal(langevin_ext.sample(model, scheme, 5, checkpoint=tmp_path / "run", **settings), plain)


def test_rows_without_a_kick_need_no_score():
    def refuse(u, t):
        raise AssertionError("evaluated")

    u = torch.ones(2, 2, 1, 1)
    assert CriticalRow(1.0, 1.0, 0, (1.0, 2.0, 3.0, 4.0)).update(u, refuse, seed=0, first=0) is None
    assert u[0].flatten().tolist() == [3.0, 7.0]


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        (
            "cld-em",
            {"n_evals": 1},
            "cld-em: option n_evals must be 1 for each step, and 1 for denoising, with at least",
        ),
        ("cld-sscs", {"n_evals": 2.5}, "cld-sscs: option n_evals must be an integer, got 2.5"),
        ("cld-ode", {"n_evals": 40}, "cld-ode: option n_evals must be 4 for each step, and 1 for denoising"),
        (
            "cld-ode",
            {"n_evals": 41, "denoise": False},
            "n_evals must be 4 for each step, with at least one step, got 41",
        ),
        ("cld-em", {"striding": "cubic"}, "cld-em: option striding must be one of quadratic, linear, got 'cubic'"),
        ("cld-em", {"t_end": 1}, "cld-em: option t_end must be a number in \\(0, 1\\), got 1"),
    ],
)
def test_wrong_options(scheme, options, message):
    with pytest.raises(ValueError, match=message):
        langevin_ext.sample(CriticalGaussian(0.0, 1.0), scheme, 2, progress=False, **options)
