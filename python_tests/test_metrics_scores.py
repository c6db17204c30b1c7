"""Inception score, kernel distance, optimal transport and the bootstrap, against closed forms and plain loops."""

import math
import sys
import warnings

import pytest
import torch

from langevin_ext import noise
from langevin_ext.metrics import (
    FewSamplesWarning,
    bootstrap,
    frechet_samples,
    gaussian_statistics,
    inception_score,
    kid,
    sinkhorn,
    wasserstein,
)
from langevin_ext.metrics.frechet import measured
from langevin_ext.metrics.resampling import resample, subset

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]], dtype=torch.float64)


def normals(n, size, seed):
    return noise.normal((n, size), seed, stream=noise.DATA).double()


def test_inception_score_against_known_values():
    assert inception_score(P, 1) == (pytest.approx(1.2421068275, abs=1e-10), 0.0)
    assert inception_score(torch.eye(10).repeat(3, 1), 3) == (pytest.approx(10, abs=1e-13), pytest.approx(0, abs=1e-13))
    assert inception_score(torch.full((20, 4), 0.25)) == (pytest.approx(1, abs=1e-13), pytest.approx(0, abs=1e-13))
    assert inception_score(P.flip(1), 1).mean == pytest.approx(inception_score(P, 1).mean, abs=1e-14)
    assert inception_score(P.float(), 1).mean == pytest.approx(1.2421068275, abs=1e-6)


def test_splits_are_consecutive_parts():
    p = P.repeat(2, 1)
    bounds = [0, 2, 5, 8]  # i 8 div 3
    parts = [inception_score(p[a:b], 1).mean for a, b in zip(bounds, bounds[1:], strict=False)]
    found = inception_score(p, 3)
    mean = sum(parts) / 3
    assert found.mean == pytest.approx(mean, rel=1e-13)
    assert found.deviation == pytest.approx(math.sqrt(sum((part - mean) ** 2 for part in parts) / 3), rel=1e-12)


@pytest.mark.parametrize(
    "p, splits, message",
    [
        (P, 5, r"splits must be in \[1, 4\], the number of rows, got 5"),
        (P, 0, r"splits must be in \[1, 4\]"),
        (P[0], 1, r"probabilities must be \(n, classes\), got \(3,\)"),
        (2 * P, 1, "probabilities must be >= 0 with rows that sum to 1, got values from 0.2 and sums from 2 to 2"),
        (P - 0.2, 1, "probabilities must be >= 0"),
        (P * math.nan, 1, "probabilities must be >= 0"),
    ],
)
def test_wrong_probabilities(p, splits, message):
    with pytest.raises(ValueError, match=f"inception_score: {message}"):
        inception_score(p, splits)


def squared_mmd(x, y):
    """The definition, pair by pair."""
    size = x.shape[1]

    def k(u, v):
        return (float(u @ v) / size + 1) ** 3

    same = [sum(k(u, v) for i, u in enumerate(z) for j, v in enumerate(z) if i != j) for z in (x, y)]
    cross = sum(k(u, v) for u in x for v in y)
    return sum(same) / (len(x) * (len(x) - 1)) - 2 * cross / len(x) ** 2


def test_kernel_distance_against_its_definition():
    a, b = normals(6, 3, 1), normals(6, 3, 2) + 0.5
    expected = squared_mmd(a, b)
    # a subset of all rows is the set itself: every subset gives the same
    assert kid(a, b, subsets=3) == (pytest.approx(expected, rel=1e-12), pytest.approx(0, abs=1e-13))
    assert kid(b, a, subsets=1).mean == pytest.approx(expected, rel=1e-12)
    assert kid(a, b.flip(0), subsets=1).mean == pytest.approx(expected, rel=1e-12)
    parts = []
    for k in range(4):
        rows = (subset(6, 4, seed=9, step=k, which=which) for which in (0, 1))
        parts.append(squared_mmd(*(z[i] for z, i in zip((a, b), rows, strict=True))))
    found = kid(a, b, subsets=4, subset_size=4, seed=9)
    mean = sum(parts) / 4
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.deviation == pytest.approx(math.sqrt(sum((part - mean) ** 2 for part in parts) / 4), rel=1e-12)


def test_kernel_distance_is_unbiased():
    # D = 1: (xy + 1)^3 has the features 1, sqrt 3 x, sqrt 3 x^2, x^3; N(0, 1) against N(d, 1), d = 1/2
    d = 0.5
    expected = 3 * d**2 + 3 * d**4 + (d**3 + 3 * d) ** 2
    n = 500  # independent pairs of 20 each
    values = torch.tensor([kid(normals(20, 1, 10 + i), normals(20, 1, 1000 + i) + d, 1).mean for i in range(n)])
    assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / math.sqrt(n))
    null = torch.tensor([kid(normals(20, 1, 10 + i), normals(20, 1, 1000 + i), 1).mean for i in range(n)])
    error = null.std().item() / math.sqrt(n)
    # counting i = j would add 2 (E k(x, x) - E k(x, y)) / 20 = 2 (34 - 4) / 20 = 3
    assert null.mean().item() == pytest.approx(0, abs=4 * error) and 4 * error < 1


def test_kernel_distance_depends_on_the_seed_alone():
    a, b = normals(40, 3, 1), normals(50, 3, 2)
    assert kid(a, b, 5, 10, 1) == kid(a, b, 5, 10, 1) != kid(a, b, 5, 10, 2)
    assert kid(a, b).deviation == 0 or kid(a, b, 2).mean == pytest.approx(kid(a, b, 2, 40).mean)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(4, 2), torch.zeros(4, 3)), r"features must be \(n, D\) and \(m, D\), got \(4, 2\) and \(4, 3\)"),
        ((torch.zeros(4), torch.zeros(4)), r"features must be \(n, D\)"),
        ((torch.zeros(4, 2), torch.full((4, 2), math.inf)), "features must be finite"),
        ((torch.zeros(4, 2), torch.zeros(3, 2), 1, 4), r"subset_size must be in \[2, 3\], the rows of the smaller set"),
        ((torch.zeros(4, 2), torch.zeros(1, 2)), r"subset_size must be in \[2, 1\]"),
        ((torch.zeros(4, 2), torch.zeros(3, 2), 0), "subsets must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_of_kid(arguments, message):
    with pytest.raises(ValueError, match=f"kid: {message}"):
        kid(*arguments)


def test_indices_are_functions_of_the_seed():
    chosen = subset(100, 30, seed=1, step=2, which=0)
    assert len(set(chosen.tolist())) == 30 and 0 <= chosen.min() and chosen.max() < 100
    assert torch.equal(subset(100, 10, seed=1, step=2, which=0), chosen[:10])
    drawn = resample(7, seed=1, step=0, which=0)
    assert torch.equal(drawn, resample(7, seed=1, step=0, which=0))
    assert not torch.equal(drawn, resample(7, seed=1, step=0, which=1))
    assert not torch.equal(drawn, resample(7, seed=1, step=1, which=0))
    counts = torch.stack([resample(5, seed=3, step=i, which=0) for i in range(2000)]).flatten().bincount(minlength=5)
    # 10,000 draws in 5 equal cells: standard deviation 40
    assert len(counts) == 5 and (counts - 2000).abs().max() < 5 * 40


@pytest.mark.parametrize("p", [1, 2, 3])
def test_transport_on_a_line_is_sorted(p):
    pytest.importorskip("ot")
    a, b = normals(30, 1, 1), 2 * normals(30, 1, 2) + 1
    expected = (a.sort(0).values - b.sort(0).values).abs().pow(p).mean().item() ** (1 / p)
    assert wasserstein(a, b, p) == pytest.approx(expected, rel=1e-12)
    assert wasserstein(b, a, p) == pytest.approx(expected, rel=1e-12)
    assert wasserstein(a, a[torch.randperm(30)], p) == pytest.approx(0, abs=1e-7)


def test_transport_of_sets_of_other_sizes_and_shapes():
    pytest.importorskip("ot")
    a, b = normals(12, 3, 1), normals(8, 3, 2)
    expected = wasserstein(a, b)
    assert wasserstein(a.repeat(2, 1), b.repeat(3, 1)) == pytest.approx(expected, rel=1e-12)
    assert wasserstein(a.view(12, 3, 1, 1), b.view(8, 1, 3, 1)) == expected
    # moving one set: W2^2 grows by |c|^2 + 2 c . (mean a - mean b)
    c = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    moved = expected**2 + (c @ c + 2 * c @ (a.mean(0) - b.mean(0))).item()
    assert wasserstein(a + c, b) ** 2 == pytest.approx(moved, rel=1e-12)
    assert wasserstein(a, b, 1) <= expected


def test_transport_is_at_least_the_frechet_distance():
    # of all pairs of laws with given moments Gaussians are the closest (Gelbrich's bound)
    pytest.importorskip("ot")
    a, b = normals(60, 4, 1), 1.5 * normals(60, 4, 2) + 1
    assert frechet_samples(a, b) * 59 / 60 < wasserstein(a, b) ** 2 < 4 * frechet_samples(a, b)


def test_a_transport_that_stops_early_is_an_error(monkeypatch):
    ot = pytest.importorskip("ot")
    real = ot.emd
    monkeypatch.setattr(ot, "emd", lambda *a, **options: real(*a, **{**options, "numItermax": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="wasserstein: a and b must have a transport that POT can find, got: "):
            wasserstein(normals(50, 2, 1), normals(50, 2, 2))


def test_transport_without_pot_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ModuleNotFoundError, match="wasserstein: needs the package POT; install it with: pip install"):
        wasserstein(normals(3, 2, 1), normals(3, 2, 2))


def test_entropic_transport_of_two_points():
    # points 0 and 1 against themselves, cost |x - y|^2: P = [[t, 1/2 - t], ...] with t / (1/2 - t) = exp(1 / reg)
    points, reg = torch.tensor([[0.0], [1.0]]), 0.5
    t = 0.5 / (1 + math.exp(-1 / reg))
    plan = [t, 0.5 - t, 0.5 - t, t]
    cost = 1 - 2 * t + reg * sum(p * math.log(4 * p) for p in plan)
    assert sinkhorn(points, points, reg, debias=False) == pytest.approx(math.sqrt(cost), abs=1e-7)
    assert sinkhorn(points, points, reg) == pytest.approx(0, abs=1e-7)


def test_entropic_transport_agrees_with_pot():
    ot = pytest.importorskip("ot")
    a, b = normals(15, 2, 1), normals(20, 2, 2) + 1

    def theirs(x, y, reg):
        cost = torch.cdist(x, y).square().numpy()
        weights = [[1 / len(z)] * len(z) for z in (x, y)]
        plan = torch.from_numpy(
            ot.sinkhorn(*weights, cost, reg, method="sinkhorn_log", stopThr=1e-12, numItermax=10000)
        )
        return ((plan * torch.from_numpy(cost)).sum() + reg * torch.xlogy(plan, plan * plan.numel()).sum()).item()

    for reg in (1.0, 4.0):
        expected = theirs(a, b, reg)
        tight = {"tolerance": 1e-8}
        assert sinkhorn(a, b, reg, debias=False, **tight) ** 2 == pytest.approx(expected, rel=1e-6)
        divergence = expected - theirs(a, a, reg) / 2 - theirs(b, b, reg) / 2
        assert sinkhorn(a, b, reg, **tight) ** 2 == pytest.approx(divergence, rel=1e-6)
        assert sinkhorn(b, a, reg) == pytest.approx(sinkhorn(a, b, reg), rel=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_entropic_transport_tends_to_the_exact_one(p):
    pytest.importorskip("ot")
    a, b = normals(15, 2, 1), normals(20, 2, 2) + 1
    exact = wasserstein(a, b, p)
    regs = (1.0, 0.1, 0.02)
    errors = [abs(sinkhorn(a, b, reg, p) ** p - exact**p) for reg in regs]
    # KL(P || 1/(n m)) is the information that one end of a transport gives of the other: log n at most
    assert errors[0] > errors[1] > errors[2] and all(e < r * math.log(20) for e, r in zip(errors, regs, strict=True))


def test_entropic_transport_far_from_the_origin():
    # exp(-C / reg) underflows everywhere: only the log domain survives
    a = normals(5, 2, 1)
    assert sinkhorn(a, a + 1e4, 0.1) == pytest.approx(math.sqrt(2) * 1e4, rel=1e-9)


@pytest.mark.parametrize(
    "name, distance", [("wasserstein", wasserstein), ("sinkhorn", lambda *a: sinkhorn(*a[:2], 1, *a[2:]))]
)
@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(3, 2), torch.zeros(3, 1)), r"a and b must have points of one size, got \(3, 2\) and \(3, 1\)"),
        ((torch.zeros(3), torch.zeros(3)), r"a and b must be \(n, D\) and \(m, D\) with at least one point"),
        (
            (torch.zeros(0, 2), torch.zeros(3, 2)),
            r"a and b must be .* with at least one point, got \(0, 2\) and \(3, 2\)",
        ),
        ((torch.zeros(3, 2), torch.full((3, 2), math.nan)), "a and b must be finite"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), 0.5), "p must be at least 1, got 0.5"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), math.inf), "p must be at least 1, got inf"),
    ],
)
def test_wrong_arguments_of_transport(name, distance, arguments, message):
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        distance(*arguments)


def test_wrong_arguments_of_sinkhorn():
    for reg in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sinkhorn: reg must be above 0, got"):
            sinkhorn(torch.zeros(2, 1), torch.zeros(2, 1), reg)
    with pytest.raises(
        ValueError, match="sinkhorn: max_iterations or reg must be larger, got 1 and 0.001, after which"
    ):
        sinkhorn(normals(9, 2, 1), normals(9, 2, 2), 0.001, max_iterations=1)


def test_bootstrap_of_a_mean():
    # deviation of the mean of n rows: s / sqrt n with s^2 = mean (x - mean)^2, exactly so for n -> inf replicates
    a = normals(50, 1, 1)

    def metric(x, y):
        return (x.mean() - y.mean()).item()

    found = bootstrap(metric, a, a + 1, n=2000, seed=3)
    expected = math.sqrt(2 * a.var(correction=0).item() / 50)
    assert found.value == pytest.approx(-1, abs=1e-12)
    # relative error of a standard deviation of 2000: 1 / sqrt 4000 = .016
    assert found.deviation == pytest.approx(expected, rel=0.08)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(-1, abs=1e-12) and high - low == pytest.approx(3.92 * found.deviation)
    only_a = bootstrap(metric, a, a + 1, n=2000, seed=3, which="a")
    assert only_a.deviation == pytest.approx(expected / math.sqrt(2), rel=0.08)
    assert bootstrap(metric, a, a + 1, n=20, seed=3) == bootstrap(metric, a, a + 1, n=20, seed=3)
    assert bootstrap(metric, a, a + 1, n=20, seed=3) != bootstrap(metric, a, a + 1, n=20, seed=4)


def test_bootstrap_gives_the_spread_of_a_frechet_distance():
    # 4 features, 300 rows: the spread over independent pairs of sets, against that from one pair
    pairs = [(normals(300, 4, 10 + i), 1.2 * normals(300, 4, 500 + i)) for i in range(60)]
    truth = torch.tensor([frechet_samples(a, b) for a, b in pairs]).std().item()
    found = bootstrap(frechet_samples, *pairs[0], n=100)
    assert found.value == frechet_samples(*pairs[0])
    # relative errors: 1 / sqrt 118 of the truth, 1 / sqrt 198 of the replicates, and about as much from the one pair
    assert found.deviation == pytest.approx(truth, rel=0.5)


def test_bootstrap_against_a_fixed_reference_takes_statistics():
    a, b = normals(40, 3, 1), normals(60, 3, 2)
    statistics = measured(b, lambda x: x)
    assert torch.equal(statistics.mean, gaussian_statistics(b)[0])
    rows = type("Rows", (), {"name": statistics.features, "__call__": lambda self, x: x})()
    found = bootstrap(lambda x, y: frechet_samples(x, y, rows), a, statistics, 10, which="a")
    expected = bootstrap(frechet_samples, a, b, 10, which="a")
    assert found == (pytest.approx(expected.value, rel=1e-12), pytest.approx(expected.deviation, rel=1e-9))


def test_bootstrap_warns_once_for_all_replicates():
    with pytest.warns(FewSamplesWarning) as caught:
        bootstrap(frechet_samples, normals(4, 6, 1), normals(5, 6, 2), 10)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 1}, "n must be at least 2, got 1"),
        ({"which": "b"}, "which must be 'both' or 'a', got 'b'"),
        ({"b_features": torch.zeros(0, 2)}, "features must have at least one row, got none"),
    ],
)
def test_wrong_arguments_of_bootstrap(options, message):
    arguments = {"metric": frechet_samples, "a_features": torch.zeros(3, 2), "b_features": torch.zeros(3, 2)}
    with pytest.raises(ValueError, match=f"bootstrap: {message}"):
        bootstrap(**arguments | options)
