"""Samplers against closed forms: exact recursions, the same noise written out, Monte-Carlo within 4 standard errors.

NCSN is arXiv:1907.05600, NCSNv2 arXiv:2006.09011.
"""

import math

import numpy as np
import pytest
import torch
from sampling_helpers import follow, gaussian_law, geometric, variances

from langevin_ext.sampling import plan, sample
from langevin_ext.schedules import step_sizes
from langevin_ext.scores import Gaussian, GaussianField, GaussianMixture

LADDER = geometric(1, 0.01, 10)
# Gaussian data N(.5, .0625), U(0, 1) at the start, ten levels, T = 100: the variance after each level, then denoised.
G1 = {
    "eps": [
        1.114969133124,
        0.4406498469732,
        0.1983381048499,
        0.1113015655142,
        0.0804663538605,
        0.0708074493421,
        0.0678632327630,
        0.0668749066876,
        0.0665284881516,
        0.0664051086641,
        0.0661931212218,
    ],
    "step_lr": [
        1.172889610390,
        0.4611659787836,
        0.2055037212276,
        0.1137640910903,
        0.0808910002386,
        0.0694445078086,
        0.0660714306494,
        0.0650178032538,
        0.0646583280845,
        0.0645315189062,
        0.0643255125926,
    ],
}
PRINTED = {"rtol": 2e-11}


def denoised(variance, data_variance, sigma):
    return variance * (data_variance / (data_variance + sigma**2)) ** 2


# --- Langevin dynamics at one level: a point mass seen at sigma = s is the target N(m, s^2) ---
@pytest.mark.parametrize(
    "s2, eps, expected", [(1.0, 0.1, 1.0256410256), (0.25, 0.1, 0.2777777778), (2.0, 0.5, 2.1333333333)]
)
@pytest.mark.parametrize("convention", ["eps", "step_lr"])
def test_stationary_variance_of_langevin_dynamics(s2, eps, expected, convention):
    target = Gaussian(0.0, variance=0.0, sigmas=torch.tensor([s2]).double().sqrt(), shape=(1, 1, 1))
    step = {"eps": eps} if convention == "eps" else {"step_lr": eps / 2}
    rows = plan(target, "langevin", n_steps_each=1000, denoise=False, **step).stages[0].rows
    assert variances(rows, 0.0, 3.0)[-1] == pytest.approx(expected, abs=5e-11)


def test_langevin_dynamics_monte_carlo():
    target = Gaussian(0.7, variance=0.0, sigmas=[1.0], shape=(64, 1, 1))
    x = sample(target, "langevin", 400, eps=0.5, n_steps_each=40, denoise=False, seed=1, progress=False).double()
    exact = 1 / (1 - 0.5 / 4)  # the start is forgotten: 0.75^80
    assert abs(x.var() - exact) < 4 * exact * math.sqrt(2 / x.numel())
    assert abs(x.mean() - 0.7) < 4 * math.sqrt(exact / x.numel())


# --- annealed Langevin dynamics, NCSN's Algorithm 1 ---
@pytest.mark.parametrize("convention", ["eps", "step_lr"])
def test_annealed_variances_follow_from_the_table(convention):
    model = Gaussian(0.5, variance=0.0625, sigmas=LADDER, shape=(1, 1, 1))
    rows = plan(model, **{convention: 2e-5}).stages[0].rows
    after = variances(rows, 0.0625, 1 / 12)
    ends = [value for value, row in zip(after, rows, strict=True) if row.ends_level]
    np.testing.assert_allclose([*ends, after[-1]], G1[convention], **PRINTED)
    assert after[-1] == pytest.approx(denoised(ends[-1], 0.0625, 0.01), rel=1e-12)


@pytest.mark.parametrize("convention, other", [("eps", "step_lr"), ("step_lr", "eps")])
def test_annealed_variances_monte_carlo(convention, other):
    # 80,000 values: 4 standard errors are 2 %, the two conventions' last variances differ by 2.9 %.
    model = Gaussian(0.5, variance=0.0625, shape=(1, 8, 8))
    x, info = sample(model, n=1250, seed=3, progress=False, snapshot="levels", return_info=True, **{convention: 2e-5})
    for measured, expected in zip([*info["snapshots"], x], G1[convention], strict=True):
        assert abs(measured.double().var() - expected) < 4 * expected * math.sqrt(2 / x.numel())
        assert abs(measured.double().mean() - 0.5) < 4 * math.sqrt(expected / x.numel())
    wrong = G1[other][-1]
    assert abs(x.double().var() - wrong) > 4 * wrong * math.sqrt(2 / x.numel())
    for level, expected in zip(info["diagnostics"], G1[convention], strict=False):
        assert level["variance"] == pytest.approx(expected, rel=0.025)


@pytest.mark.parametrize("convention, ratio", [("eps", 1.05263158), ("step_lr", 1.11111111)])
def test_point_mass_ends_every_level_at_a_multiple_of_sigma(convention, ratio):
    model = Gaussian(0.5, variance=0.0, sigmas=LADDER, shape=(4, 4, 4))
    rows = plan(model, **{convention: 2e-5}).stages[0].rows
    after = variances(rows, 0.0, 1 / 12)
    ends = np.array([value for value, row in zip(after, rows, strict=True) if row.ends_level])
    np.testing.assert_allclose(ends / LADDER.numpy() ** 2, ratio, rtol=5e-9)
    assert after[-1] == pytest.approx(0, abs=1e-20)
    settings = {"n": 320, "seed": 2, "sigmas": LADDER[4:], "n_steps_each": 50, "progress": False, convention: 2e-5}
    x = sample(model, denoise=False, **settings).double()
    assert abs(x.var() - ratio * 1e-4) < 4 * ratio * 1e-4 * math.sqrt(2 / x.numel())
    torch.testing.assert_close(sample(model, **settings), torch.full_like(x, 0.5).float(), rtol=0, atol=1e-7)


def test_ncsnv2_preset():
    # CIFAR-10 preset of NCSNv2: sigma 50 to 0.01, 232 levels, T = 5, step_lr 6.2e-6.
    ladder = geometric(50, 0.01, 232)
    for data, last, clean in ((0.0, 1.1282992e-4, 0.0), (0.0625, 0.0712799874, 0.0710524377)):
        model = Gaussian(0.5, variance=data, sigmas=ladder, shape=(1, 1, 1))
        rows = plan(model, step_lr=6.2e-6, n_steps_each=5).stages[0].rows
        after = variances(rows, data, data + 2500)
        assert after[-2] == pytest.approx(last, rel=5e-8)
        assert after[-1] == pytest.approx(clean, rel=1e-8, abs=1e-18)


def test_golden_run_with_philox_noise():
    # seed 42, k = 0 .. 3 over both levels, D = 6, N(.5, .0625), sigma (1, .1), eps 1e-3, T = 2, x0 = .5.
    model = Gaussian(0.5, variance=0.0625, sigmas=[1.0, 0.1], shape=(6, 1, 1))
    settings = {
        "n": 8,
        "seed": 42,
        "eps": 1e-3,
        "n_steps_each": 2,
        "init": torch.full((8, 6, 1, 1), 0.5),
        "progress": False,
    }
    x = sample(model, denoise=False, **settings).flatten(1)
    golden = {
        0: [-0.2689949696, 0.5558704804, -0.4297065457, 1.3314294408, -0.0044840131, 0.8445124398],
        1: [1.1962671266, 0.5832924098, 0.3671759135, -0.2666572694, 1.2075937817, 0.5447903118],
        7: [0.7532350959, 0.1909483395, 0.2222369631, 0.8111165501, 1.1092675645, 0.2475274619],
    }
    for index, values in golden.items():
        np.testing.assert_allclose(x[index], values, rtol=0, atol=1e-6)
    clean = [-0.1629266979, 0.5481642072, -0.30147116, 1.2167495179, 0.0650999887, 0.7969934826]
    np.testing.assert_allclose(sample(model, **settings)[0].flatten(), clean, rtol=0, atol=1e-6)


def test_annealed_follows_the_algorithm_step_by_step():
    """Algorithm 1 written out on its own, float64, same noise: every sign and coefficient to rounding."""
    cov = torch.tensor([[0.3, 0.1, 0.0], [0.1, 0.2, -0.05], [0.0, -0.05, 0.1]], dtype=torch.float64)
    mean, sigmas, eps = torch.tensor([0.2, 0.5, 0.9]).double(), geometric(0.8, 0.05, 4), 1e-3
    model = Gaussian(mean, cov=cov, sigmas=sigmas)

    def score(x, i):
        return -(x - mean) @ torch.linalg.inv(cov + sigmas[i] ** 2 * torch.eye(3, dtype=torch.float64))

    start = torch.rand(5, 3, 1, 1, dtype=torch.float64, generator=torch.manual_seed(0))
    levels = [(s, a, 7) for s, a in zip(sigmas.tolist(), step_sizes(sigmas, eps).tolist(), strict=True)]
    for denoise in (None, 3):
        x = sample(
            model,
            n=5,
            seed=9,
            first=4,
            eps=eps,
            n_steps_each=7,
            init=start,
            denoise=denoise is not None,
            dtype=torch.float64,
            progress=False,
        )
        expected = follow(score, levels, start.flatten(1), seed=9, first=4, denoise=denoise)
        torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-12)
    one = sample(
        model,
        "langevin",
        5,
        level=1,
        seed=9,
        first=4,
        eps=eps,
        n_steps_each=7,
        init=start,
        denoise=False,
        dtype=torch.float64,
        progress=False,
    )
    expected = follow(lambda x, i: score(x, 1), [(sigmas[1].item(), eps, 7)], start.flatten(1), seed=9, first=4)
    torch.testing.assert_close(one.flatten(1), expected, rtol=0, atol=1e-12)


def test_gaussian_field_at_full_resolution():
    # 8x8 field, HRS: average variance .06640651, right-neighbour covariance .05969419, Frechet distance .003896.
    field = GaussianField(sigmas=LADDER)
    cov = field.covariance().numpy()
    rows = plan(field, denoise=False).stages[0].rows
    mean, law = gaussian_law(rows, np.full(64, 0.5), cov)
    pairs = [(i, i + 1) for i in range(64) if i % 8 < 7]
    assert np.diag(law).mean() == pytest.approx(0.06640651, abs=5e-9)
    assert np.mean([law[pair] for pair in pairs]) == pytest.approx(0.05969419, abs=5e-9)
    between = np.sqrt(np.linalg.eigvalsh(cov)) - np.sqrt(np.linalg.eigvalsh(law))  # they share their eigenvectors
    assert (between**2).sum() + ((mean - 0.5) ** 2).sum() == pytest.approx(0.003896, abs=5e-7)


# --- the mixture of NCSN's figure 3: which fraction finds the mode of weight 0.8 ---
def fraction(scheme, form, sigmas, eps, n, steps=100):
    model = GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], [0.2, 0.8], 1.0, sigmas, form=form)
    start = 16 * torch.rand(n, 2, 1, 1, generator=torch.manual_seed(1)) - 8
    x = sample(model, scheme, n, seed=4, eps=eps, n_steps_each=steps, init=start, denoise=False, progress=False)
    return (x.sum((1, 2, 3)) > 0).double().mean().item()


@pytest.mark.parametrize(
    "scheme, form, sigmas, eps, steps, expected",
    [
        ("langevin", "replaced", [1.0], 0.1, 1000, 0.5090),
        ("annealed", "replaced", geometric(20, 1, 10), 0.1, 100, 0.7823),
        ("annealed", "convolved", geometric(10, 0.1, 10), 0.005, 100, 0.7842),
    ],
)
def test_mode_fractions(scheme, form, sigmas, eps, steps, expected):
    n = 2000
    p = fraction(scheme, form, sigmas, eps, n, steps)
    assert abs(p - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
    assert (abs(p - 0.8) < 0.1) == (scheme == "annealed")


def test_langevin_dynamics_does_not_leave_the_mode_it_starts_in():
    model = GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], [0.2, 0.8], 1.0, [1.0], form="replaced")
    start = model.sample(2000, seed=8)
    x = sample(model, "langevin", 2000, seed=4, eps=0.1, n_steps_each=200, init=start, denoise=False, progress=False)
    assert torch.equal(x.sum((1, 2, 3)) > 0, start.sum((1, 2, 3)) > 0)


def test_figure_3_as_printed_is_refused():
    with pytest.raises(ValueError, match=r"eps must be below 4 sigma\^2 = 0.04 .* got eps=0.1"):
        fraction("annealed", "convolved", geometric(10, 0.1, 10), 0.1, 4)
