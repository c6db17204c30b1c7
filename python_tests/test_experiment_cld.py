"""The experiments on critically-damped Langevin diffusion (arXiv:2112.07068) at reduced size."""

import math

import pytest
import torch

from langevin_ext.experiments import cld_toy, damping
from langevin_ext.processes import CriticallyDamped


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cld")
    return cld_toy.run(folder, size=0.05, progress=False), folder


def test_toy_verdicts(toy):
    report, folder = toy
    # the one claim that is wrong as printed, and said to be
    wrong = [finding.what for finding in report.findings if not finding.reproduced]
    assert wrong == ["l_t of HSM bounded without numerical_eps"]
    assert len(report.findings) == 60
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in report.figures)
    assert [path.name for path in report.figures] == [
        "cld-toy-scales.png",
        "cld-toy-samplers.png",
        "cld-toy-mixture.png",
    ]


def test_toy_numbers(toy):
    values = {finding.what: finding for finding in toy[0].findings}
    # the least losses and variances after n evaluations, computed independently
    expected = {
        "least loss of HSM at t=0.01, data of variance 0.25": 0.72419532,
        "least loss of DSM at t=0.01, data of variance 0.25": 0.74657174,
        "least loss of HSM at t=0.3, data of variance 0.01": 0.00068040,
        "least loss of DSM at t=0.3, data of variance 0.01": 0.00166255,
        "cld-em, linear, n=20: variance of x (data 0.25)": 0.481970,
        "cld-em, quadratic, n=100: variance of x (data 0.25)": 0.257534,
        "cld-sscs, linear, n=50: variance of x (data 0.25)": 0.227979,
        "cld-sscs, quadratic, n=20: variance of x (data 0.25)": 0.229265,
    }
    for what, number in expected.items():
        assert values[what].expected == pytest.approx(number, abs=5.1e-7)  # six decimals
        assert abs(values[what].ours - number) < 4 * values[what].stderr < 0.1 * number


@pytest.fixture(scope="module")
def damped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damping")
    return damping.run(folder, size=0.1, progress=False), folder


def test_damping_verdicts(damped):
    report, folder = damped
    assert report.reproduced and len(report.findings) == 31
    assert [path.name for path in folder.iterdir()] == ["damping.png"]


def test_rates_of_decay():
    # omega = 16: roots of s^2 + 2 zeta omega s + omega^2
    rates = [damping.Damped(share).rate for share in damping.SHARES.values()]
    assert rates == pytest.approx([2.0, 16.0, 16 * (4 - math.sqrt(15)), 16 * (16 - math.sqrt(255))])


def test_trajectories_have_the_law_of_the_equation():
    # the transition of one small step is the equation itself, up to the next order
    regime, dt = damping.Damped(3.0), 1e-6
    a, cov = regime.matrix(dt), regime.covariance(dt, 0.0)
    drift = torch.tensor([[0.0, 32.0], [-8.0, -96.0]], dtype=torch.float64)  # beta/M, -beta, -Gamma beta/M
    torch.testing.assert_close((a - torch.eye(2)) / dt, drift, rtol=0, atol=0.01)
    # dS/dt = F S + S F' + diag(0, 2 Gamma beta) with S_0 = diag(0, gamma M)
    start = torch.diag(torch.tensor([0.0, 0.01], dtype=torch.float64))
    growth = drift @ start + start @ drift.T + torch.diag(torch.tensor([0.0, 48.0], dtype=torch.float64))
    torch.testing.assert_close((cov - start) / dt, growth, rtol=0, atol=0.01)
    # critically damped: the closed forms of the diffusion model
    process, critical = CriticallyDamped(8.0), damping.Damped(1.0)
    torch.testing.assert_close(torch.stack(process.mean_matrix(0.1)), critical.matrix(0.1).flatten())
    torch.testing.assert_close(process.covariance(0.1, data_variance=0.3).vv, critical.covariance(0.1, 0.3)[1, 1])


def test_trajectories_depend_on_seed_and_sample_alone():
    regime = damping.Damped(1.0)
    many, few = regime.trajectories(torch.ones(5), 3), regime.trajectories(torch.ones(2), 3)
    torch.testing.assert_close(many[:, :, :2], few, rtol=0, atol=1e-12)  # products of other shapes, other roundings
    assert not torch.allclose(few, regime.trajectories(torch.ones(2), 4))
