"""Hybrid and denoising score matching against closed forms, with exact velocity scores (arXiv:2112.07068)."""

import pytest
import torch

from langevin_ext import noise
from langevin_ext.losses.hsm import hsm, times
from langevin_ext.processes import CriticallyDamped
from langevin_ext.scores.critical import CriticalGaussian, CriticalMixture

# variance of the data, t: the least loss of a pixel with "hybrid" and with "sampled", computed independently
MINIMA = {
    (0.25, 0.01): (0.72419532, 0.74657174),
    (0.25, 0.1): (0.30529842, 0.31087654),
    (0.25, 0.3): (0.01631110, 0.01727788),
    (0.25, 0.5): (0.00138483, 0.00150997),
    (1.0, 0.1): (0.43608398, 0.44061196),
    (0.01, 0.3): (0.00068040, 0.00166255),
}
SHAPE = (1, 10, 10)


class Recording:
    """A velocity model that keeps what it was given and returns a fixed score."""

    def __init__(self, score=0.0, process=None):
        self.score, self.process = score, CriticallyDamped() if process is None else process

    def __call__(self, u, t):
        self.u, self.t = u, t
        return torch.full_like(u.chunk(2, dim=1)[0], self.score)


def drawn(shape, seed, step, stream):
    return noise.normal(shape, seed, step=step, stream=stream).double()


def test_worked_example():
    # t = .3, x_0 = 1, eps = (.7, -.4): u = (.95735158, -.26603508), l_t = 2.07737433, target .83094973
    model = Recording()
    x, t = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    loss = hsm(model, x, t, seed=5, step=9).item()
    eps_x, eps_v = (drawn((1, 1, 1, 1), 5, 9, stream).item() for stream in (noise.CLD_X, noise.CLD_V))
    # the law of u is affine in eps: move the drawn one to the wanted one
    lower = (0.92701506, 0.05053888, 0.48137689)
    u_x = model.u[0, 0].item() + lower[0] * (0.7 - eps_x)
    u_v = model.u[0, 1].item() + lower[1] * (0.7 - eps_x) + lower[2] * (-0.4 - eps_v)
    assert (u_x, u_v) == pytest.approx((0.95735158, -0.26603508), abs=3e-8)  # eight digits of L, times at most 3
    assert loss == pytest.approx(eps_v**2)  # the zero score
    scale = 2.07737433
    constant = Recording(1.5)
    assert hsm(constant, x, t, seed=5, step=9).item() == pytest.approx((1.5 / scale + eps_v) ** 2, rel=1e-7)
    likelihood = hsm(constant, x, t, seed=5, step=9, weighting="likelihood").item()
    assert likelihood == pytest.approx(4 * (1.5 + scale * eps_v) ** 2, rel=1e-7)  # Gamma beta = 4


@pytest.mark.parametrize("velocity", ["hybrid", "sampled"])
@pytest.mark.parametrize(("variance", "t"), MINIMA)
def test_least_loss_of_the_exact_score(variance, t, velocity):
    expected = MINIMA[variance, t][velocity == "sampled"]
    process = CriticallyDamped(numerical_eps=0.0)
    joint = process.covariance(t, data_variance=variance)
    scale = process.score_scale(t, velocity)
    least = 1 - joint.xx / joint.det / scale**2  # (S^-1)_vv = S_xx / det S
    assert least.item() == pytest.approx(expected, abs=1e-8)  # eight digits
    model = CriticalGaussian(0.3, variance, process, shape=SHAPE)
    loss = hsm(
        model,
        model.sample(1000, seed=1, dtype=torch.float64),
        torch.full((1000,), t, dtype=torch.float64),
        seed=2,
        step=3,
        velocity=velocity,
    )
    error = loss.std().item() / len(loss) ** 0.5 / 100
    assert abs(loss.mean().item() / 100 - expected) < 4 * error


def test_what_separates_hybrid_from_sampled():
    # the values above differ by more than four standard errors, so that swapping the two fails: at t = .3, r = .01
    # .00068 against .00166, and a batch of 100,000 pixels is good to 1e-5 (the loss has relative variance 2)
    assert abs(0.00068040 - 0.00166255) > 4 * 0.00166255 * (2 / 100_000) ** 0.5
    process = CriticallyDamped()
    x, t = torch.zeros(2000, *SHAPE), torch.full((2000,), 0.1)
    for velocity in ("hybrid", "sampled"):
        model = Recording(process=process)
        hsm(model, x, t, seed=1, step=0, velocity=velocity)
        cov = torch.cov(torch.stack([one.flatten() for one in model.u.double().chunk(2, dim=1)]))
        s = process.covariance(0.1)  # the law of u given x_0 is the same, whoever draws the velocity
        for i, j, value in ((0, 0, s.xx), (0, 1, s.xv), (1, 1, s.vv)):
            error = ((cov[i, i] * cov[j, j] + value**2) / 200_000) ** 0.5
            assert abs(cov[i, j] - value) < 4 * error


def test_gradients_of_both_have_one_mean():
    # s = theta c(u): d/dtheta of the likelihood's loss differs by a constant between the two targets, on average
    process, n = CriticallyDamped(), 4000
    data = CriticalGaussian(0.0, 0.25, process, shape=SHAPE)
    x, t = data.sample(n, seed=1), torch.full((n,), 0.02)
    slopes = []
    for velocity in ("hybrid", "sampled"):
        theta = torch.zeros(n, requires_grad=True)

        class Linear:
            process = data.process

            def __init__(self, theta):
                self.theta = theta

            def __call__(self, u, t):
                return self.theta.view(-1, 1, 1, 1) * u.chunk(2, dim=1)[1]

        loss = hsm(Linear(theta), x, t, seed=2, step=0, weighting="likelihood", velocity=velocity)
        (slope,) = torch.autograd.grad(loss.sum(), theta)
        slopes.append((slope.mean().item(), slope.std().item() / n**0.5))
    (hybrid, e1), (sampled, e2) = slopes
    assert abs(hybrid - sampled) < 4 * (e1**2 + e2**2) ** 0.5
    # -2 Gamma beta E[s* v] D with E[grad_v log p . v] = -1 for every law: 8 times 100
    assert abs(hybrid - 800) < 4 * e1


def test_each_sample_has_its_own_noise():
    x, t = torch.randn(6, 2, 3, 1, generator=torch.manual_seed(0)), torch.linspace(0.01, 1, 6)
    model = Recording(0.5)
    together = hsm(model, x, t, seed=3, step=1, velocity="sampled")
    for i in range(6):
        alone = hsm(model, x[i : i + 1], t[i : i + 1], seed=3, step=1, first=i, velocity="sampled")
        assert torch.equal(alone[0], together[i])
    assert not torch.equal(together, hsm(model, x, t, seed=3, step=2, velocity="sampled"))
    assert together.dtype == torch.float32 and together.shape == (6,)


def test_velocity_score_is_the_gradient_of_the_log_density():
    means, weights = torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=torch.float64), torch.tensor([0.3, 0.7])
    process = CriticallyDamped(beta=(1.0, 6.0), mass=0.5)
    fields = (
        (CriticalMixture(means, weights, 0.1, process), means, weights.double(), 0.1),
        (CriticalGaussian([-1.0, 0.5], 0.4, process), means[:1], torch.ones(1).double(), 0.4),
    )
    for field, centres, parts, variance in fields:
        for t in (0.01, 0.3, 1.0):
            u = torch.randn(5, 4, 1, 1, dtype=torch.float64, generator=torch.manual_seed(1), requires_grad=True)
            s = process.covariance(t, data_variance=variance)
            cov = torch.tensor([[s.xx, s.xv], [s.xv, s.vv]])
            axx, _, avx, _ = process.mean_matrix(t)
            densities = []
            for centre, weight in zip(centres, parts, strict=True):
                logs = weight.log()
                for pixel in range(2):
                    mean = torch.stack([axx * centre[pixel], avx * centre[pixel]])
                    law = torch.distributions.MultivariateNormal(mean, cov)
                    logs = logs + law.log_prob(torch.stack([u[:, pixel, 0, 0], u[:, 2 + pixel, 0, 0]], 1))
                densities.append(logs)
            (gradient,) = torch.autograd.grad(torch.logsumexp(torch.stack(densities), 0).sum(), u)
            times = torch.full((5,), t, dtype=torch.float64)
            torch.testing.assert_close(field(u.detach(), times), gradient[:, 2:], rtol=1e-8, atol=1e-8)
            single = field(u.detach().float(), t)
            assert single.dtype == torch.float32
            assert torch.equal(field(u.detach().float()[2:3], t)[0], single[2])


def test_draws_of_the_exact_models():
    mixture = CriticalMixture([[-1.0], [1.0]], [0.3, 0.7], 0.01)
    x = mixture.sample(20_000, seed=1, dtype=torch.float64).flatten()
    share = (x > 0).double().mean().item()
    assert abs(share - 0.7) < 4 * (0.21 / 20_000) ** 0.5
    assert abs(x[x > 0].var().item() - 0.01) < 4 * 0.01 * (2 / 14_000) ** 0.5
    assert torch.equal(mixture.sample(2, seed=1, first=3), mixture.sample(5, seed=1)[3:])


def test_times():
    t = times(40_000, seed=1, step=2)
    assert t.dtype == torch.float32 and t.min() >= 1e-5 and t.max() <= 1
    # r^2 of a uniform r has mean 1/3, variance 4/45; r itself 1/2 and 1/12
    assert abs(t.mean().item() - 1 / 3) < 4 * (4 / 45 / 40_000) ** 0.5
    linear = times(40_000, seed=1, step=2, spacing="linear", t_min=0.1)
    assert abs(linear.mean().item() - 0.55) < 4 * 0.9 * (1 / 12 / 40_000) ** 0.5
    assert torch.equal(times(3, seed=1, step=2, first=5), t[5:8])
    with pytest.raises(ValueError, match="times: argument t_min must be in \\[0, 1\\), got 1"):
        times(3, seed=0, step=0, t_min=1)
    with pytest.raises(ValueError, match="times: argument spacing must be one of linear, quadratic, got 'cubic'"):
        times(3, seed=0, step=0, spacing="cubic")


def test_wrong_arguments():
    model, x, t = Recording(), torch.zeros(2, 1, 1, 1), torch.tensor([0.5, 1.0])
    draw = {"seed": 0, "step": 0}
    with pytest.raises(TypeError, match="hsm: x must be a float tensor \\(B, C, H, W\\), got torch.int64"):
        hsm(model, x.long(), t, **draw)
    with pytest.raises(ValueError, match="hsm: t must be float of shape \\(2,\\), got torch.int64 \\(2,\\)"):
        hsm(model, x, t.long(), **draw)
    with pytest.raises(ValueError, match="hsm: t must be in \\(0, 1\\], got 0 to 1"):
        hsm(model, x, torch.tensor([0.0, 1.0]), **draw)
    with pytest.raises(ValueError, match="hsm: weighting must be one of reweighted, likelihood, got 'plain'"):
        hsm(model, x, t, weighting="plain", **draw)
    with pytest.raises(ValueError, match="argument velocity must be 'hybrid' or 'sampled', got 'none'"):
        hsm(model, x, t, velocity="none", **draw)
    wide = Recording()
    wide.__class__ = type("Wide", (Recording,), {"__call__": lambda self, u, t: u})
    with pytest.raises(ValueError, match="hsm: model must return a score of shape \\(2, 1, 1, 1\\), got"):
        hsm(wide, x, t, **draw)


def test_wrong_exact_models():
    with pytest.raises(ValueError, match="CriticalMixture: argument means must be"):
        CriticalMixture([[0.0], [1.0]], [1.0], 0.1)
    with pytest.raises(ValueError, match="CriticalMixture: argument variance must be at least 0, got -1"):
        CriticalMixture([[0.0]], [1.0], -1)
    with pytest.raises(ValueError, match="CriticalGaussian: argument mean must be one number or have shape"):
        CriticalGaussian([0.0, 1.0], 1.0, shape=(1, 3, 3))
    with pytest.raises(ValueError, match="CriticalGaussian: u must have shape \\(B, 2, 1, 1\\), got \\(4, 1, 1, 1\\)"):
        CriticalGaussian(0.0, 1.0)(torch.zeros(4, 1, 1, 1), 0.5)
