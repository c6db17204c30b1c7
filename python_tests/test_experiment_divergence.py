"""The experiment `divergence` at reduced size: its verdicts, its closed forms, and what would make them fail."""

import pytest
import torch

from langevin_ext import noise
from langevin_ext.experiments import divergence
from langevin_ext.metrics import wasserstein


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return divergence.run(tmp_path_factory.mktemp("out"), size=0.1, progress=False)


def test_every_verdict_is_reproduced(report):
    assert report.reproduced, str(report)
    assert [finding.paper for finding in report.findings] == ["falls", "rises", None, "diverges"]
    assert report.figures[0].stat().st_size > 20_000


def test_the_minimum_is_inside(report):
    # the start is too wide, the end wrong: the chain must stop in between
    assert "Its minimum is at step" in report.remarks[0]
    fall, rise = report.findings[:2]
    assert fall.ours > 4 * fall.stderr and rise.ours > 4 * rise.stderr


def test_verdicts_can_fail():
    """Curves of an exact score under the name of the learned one: nothing rises."""
    flat = divergence.Curve((0, 10, 20), 1 + 0.1 * noise.uniform((3, 8), 0).double(), {})
    found = divergence.findings({"learned": flat, "exact": flat}, flat.groups[0])
    assert not found[1].reproduced and not found[3].reproduced
    high = divergence.Curve(flat.times, flat.groups + 1, {})
    assert not divergence.findings({"learned": flat, "exact": high}, flat.groups[0])[2].reproduced


def test_start_and_target_are_the_data_with_noise():
    exact, n = divergence.ring(), 4000
    for sigma in (divergence.SPREAD, divergence.SIGMA):
        square = divergence._draws(exact, n, sigma, 0, first=0).square().sum((1, 2, 3)).double()
        expected = divergence.RADIUS**2 + 2 * (divergence.VARIANCE + sigma**2)
        assert abs(square.mean() - expected) < 4 * square.std() / n**0.5


def test_distances_are_of_groups():
    x, y = (torch.randn(80, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    found = divergence.distances(x, y)
    assert len(found) == divergence.GROUPS and found[3] == pytest.approx(wasserstein(x[30:40], y[30:40]))
