"""Statistics files, Frechet distances from them, and the divergence of Gaussians."""

import json
import math
import warnings

import numpy as np
import pytest
import torch

from langevin_ext import __version__, noise
from langevin_ext.metrics import (
    FewSamplesWarning,
    Statistics,
    frechet,
    frechet_distance,
    frechet_samples,
    gaussian_kl,
    gaussian_statistics,
    load_statistics,
    save_statistics,
)

ROWS = noise.normal((40, 5), 1).double() * torch.tensor([1.0, 2.0, 0.5, 3.0, 0.1]) + torch.arange(5)
OTHER = noise.normal((30, 5), 2).double()
ABOUT = {"source": "rows", "count": 40, "features": "pixels", "weights": None, "size": [5, 1, 1]}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "rows.npz"
    save_statistics(path, *gaussian_statistics(ROWS), ABOUT)
    return path


def test_round_trip_keeps_every_bit_and_the_provenance(saved):
    found = load_statistics(saved)
    mean, covariance = gaussian_statistics(ROWS)
    assert torch.equal(found.mean, mean) and torch.equal(found.covariance, covariance)
    assert ABOUT.items() <= found.provenance.items() and found.provenance["version"] == __version__
    assert (found.count, found.features) == (40, "pixels")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["rows.json", "rows.npz"]
    with np.load(saved) as file:
        assert sorted(file) == ["mu", "sigma"] and file["mu"].dtype == file["sigma"].dtype == np.float64


def test_nothing_is_overwritten(saved, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="save_statistics: path must be a new file, got .*rows.npz, which exists"):
        save_statistics(saved, *gaussian_statistics(OTHER), ABOUT)
    saved.unlink()
    with pytest.raises(FileExistsError, match="rows.json, which exists"):
        save_statistics(saved, *gaussian_statistics(OTHER), ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]
    assert (tmp_path / "rows.json").read_bytes() == before["rows.json"]


def test_a_write_that_fails_leaves_nothing_that_looks_foreign(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_statistics(tmp_path / "rows.npz", *gaussian_statistics(ROWS), ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_a_set_may_be_statistics_or_their_file(saved):
    expected = frechet_samples(ROWS, OTHER)
    for first in (saved, str(saved), load_statistics(saved)):
        found = frechet_samples(first, OTHER)
        assert found == expected and str(found) == str(expected) and found.counts == (40, 30)
    assert frechet_samples(OTHER, saved) == pytest.approx(expected, rel=1e-12)
    assert frechet_samples(saved, saved) == pytest.approx(0, abs=1e-12)


def test_the_root_of_statistics_is_taken_once(saved, monkeypatch):
    calls = []
    monkeypatch.setattr(frechet, "_root", lambda *a, root=frechet._root: calls.append(a) or root(*a))
    first, second = load_statistics(saved), Statistics(*gaussian_statistics(OTHER))
    values = [float(frechet_samples(first, second)) for _ in range(3)]
    assert len(calls) == 2 and len(set(values)) == 1
    assert frechet_samples(Statistics(2 * first.mean, first.covariance), second) > values[0] and len(calls) == 3


def test_statistics_from_elsewhere_have_an_unknown_count(tmp_path):
    mean, covariance = gaussian_statistics(ROWS)
    np.savez_compressed(tmp_path / "theirs.npz", mu=mean.numpy().astype(np.float32), sigma=covariance.numpy())
    found = frechet_samples(tmp_path / "theirs.npz", OTHER)
    # mu in float32: the distance moves by 2 |m1 - m2| |m1| 2^-24
    assert found == pytest.approx(frechet_samples(ROWS, OTHER), abs=1e-5)
    assert found.counts == (None, 30)
    assert str(found).endswith("(pixels, an unknown number of against 30 samples)")
    both = frechet_samples(Statistics(mean, covariance), Statistics(mean, covariance))
    assert both.features == "unknown features" and both.counts == (None, None)


def test_features_and_weights_must_agree(saved):
    class Doubled:
        name, sha256 = "doubled", "2222"

        def __call__(self, x):
            return 2 * x

    with pytest.raises(ValueError, match="frechet_samples: a and b must have the same features, got 'pixels' and 'dou"):
        frechet_samples(saved, OTHER, Doubled())
    mean, covariance = gaussian_statistics(ROWS)
    first, second = (Statistics(mean, covariance, {"features": "net", "weights": w}) for w in ("1111", "2222"))
    with pytest.raises(ValueError, match="must have the same weights, got '1111' and '2222'"):
        frechet_samples(first, second)
    same = Statistics(2 * mean, 4 * covariance, {"features": "doubled", "weights": "2222", "count": 40})
    assert frechet_samples(same, OTHER, Doubled()) == pytest.approx(4 * frechet_samples(ROWS, OTHER), rel=1e-12)


def test_few_samples_are_said_once_in_one_sentence(saved):
    with pytest.warns(FewSamplesWarning) as caught:
        frechet_samples(OTHER[:4], OTHER[:3])
    assert len(caught) == 1 and caught[0].filename == __file__
    message = str(caught[0].message)
    assert message.startswith("frechet_samples: 3 samples are fewer than the 5 features") and "\n" not in message
    with pytest.warns(FewSamplesWarning, match="4 samples"):
        frechet_samples(saved, OTHER[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_samples(OTHER[:5], saved)


@pytest.mark.filterwarnings("ignore::langevin_ext.metrics.FewSamplesWarning")
@pytest.mark.parametrize("counts", [(4, 30), (30, 4), (5, 2), (3, 3)])
def test_few_samples_give_the_distance_of_their_statistics(counts):
    # the shortcut without a covariance; its root is off by 1e-8, the root of rounding, for the eigenvalues that are 0
    a, b = ROWS[: counts[0]], OTHER[: counts[1]]
    expected = frechet_distance(*gaussian_statistics(a), *gaussian_statistics(b))
    assert frechet_samples(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_samples(a, a) == pytest.approx(0, abs=1e-12)


def test_eight_bit_images_count_as_fractions_of_255():
    v = torch.tensor([[0, 51], [255, 102], [204, 0]], dtype=torch.uint8)[:, None, None]
    assert frechet_samples(v, v.double() / 255) == pytest.approx(0, abs=1e-15)
    assert frechet_samples(v, 1 - v.double() / 255) > 0.01


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mu": np.zeros(5)}, r"must hold mu and sigma, got \['mu'\]"),
        ({"pool_3": np.zeros((9, 5))}, r"must hold mu and sigma, got \['pool_3'\]"),
        ({"mu": np.zeros(4), "sigma": np.eye(5)}, r"must be \(D,\) and \(D, D\), got \(4,\) and \(5, 5\)"),
        ({"mu": np.zeros(0), "sigma": np.eye(0)}, r"must be \(D,\) and \(D, D\)"),
        ({"mu": np.full(5, math.nan), "sigma": np.eye(5)}, "mean and covariance must be finite"),
        ({"mu": np.array(["a"] * 5), "sigma": np.eye(5)}, "mean and covariance must be numbers"),
        ({"mu": np.array([None] * 5), "sigma": np.eye(5)}, "must be a whole npz file without objects"),
    ],
)
def test_files_that_are_no_statistics(tmp_path, change, message):
    np.savez(tmp_path / "x.npz", **change)
    with pytest.raises(ValueError, match=f"load_statistics: .*{message}"):
        load_statistics(tmp_path / "x.npz")


def test_damaged_files(saved):
    whole = saved.read_bytes()
    for content in (b"", b"PK", whole[:100], whole[: len(whole) // 2], b"text"):
        saved.write_bytes(content)
        with pytest.raises(ValueError, match="load_statistics: .*rows.npz must be a whole npz file without objects"):
            load_statistics(saved)
    with pytest.raises(FileNotFoundError, match="load_statistics: path must be a file, got .*none.npz"):
        load_statistics(saved.with_name("none.npz"))
    with pytest.raises(ValueError, match="load_statistics: path must end in .npz, got rows.txt"):
        load_statistics("rows.txt")


def test_a_provenance_of_another_file_is_refused(saved):
    beside = saved.with_suffix(".json")
    about = json.loads(beside.read_text())
    for text in ("{", "[]", "{}", json.dumps(about | {"sha256": "0" * 64})):
        beside.write_text(text)
        with pytest.raises(ValueError, match="rows.json must be the provenance of rows.npz, got one that does not"):
            load_statistics(saved)
    beside.write_text(json.dumps(about))
    assert load_statistics(saved).count == 40
    mean, covariance = gaussian_statistics(ROWS)
    for changed in ((mean + 1, covariance), (mean, 2 * covariance)):
        np.savez(saved, mu=changed[0].numpy(), sigma=changed[1].numpy())
        with pytest.raises(ValueError, match="must be the provenance of rows.npz"):
            load_statistics(saved)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("x.txt", torch.zeros(2), torch.eye(2), ABOUT), ValueError, "path must end in .npz, got x.txt"),
        (("x.npz", torch.zeros(3), torch.eye(2), ABOUT), ValueError, r"must be \(D,\) and \(D, D\), got \(3,\)"),
        (("x.npz", torch.full((2,), math.inf), torch.eye(2), ABOUT), ValueError, "must be finite"),
        (("x.npz", torch.zeros(2), torch.eye(2), {"source": "x"}), ValueError, r"got none of \['count', 'features', "),
        (("x.npz", torch.zeros(2), torch.eye(2), ABOUT | {"source": {1}}), TypeError, "provenance must fit into JSON"),
    ],
)
def test_wrong_arguments_of_save(tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"save_statistics: .*{message}"):
        save_statistics(*arguments)
    assert not list(tmp_path.iterdir())


def test_sets_of_other_types_are_refused():
    with pytest.raises(
        TypeError, match="frechet_samples: b must be a tensor, Statistics or the path of some, got list"
    ):
        frechet_samples(OTHER, [1.0])


def random_gaussian(size, seed):
    factor = noise.normal((size, 2 * size), seed).double()
    return noise.normal((size,), seed + 100).double(), factor @ factor.T / size


def test_kl_against_closed_forms():
    # one dimension: log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2
    found = gaussian_kl([1.0], [[4.0]], [-1.0], [[9.0]])
    assert found == pytest.approx(math.log(3 / 2) + (4 + 4) / 18 - 0.5, abs=1e-14)
    assert gaussian_kl([-1.0], [[9.0]], [1.0], [[4.0]]) == pytest.approx(math.log(2 / 3) + 13 / 8 - 0.5, abs=1e-14)
    first, second = random_gaussian(6, 1), random_gaussian(6, 2)
    normal = torch.distributions.MultivariateNormal
    for a, b in ((first, second), (second, first)):
        expected = torch.distributions.kl_divergence(normal(*a), normal(*b)).item()
        assert gaussian_kl(*a, *b) == pytest.approx(expected, rel=1e-12)
    assert gaussian_kl(*first, *first) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2)), r"shapes must be \(D,\), \(D, D\)"),
        ((torch.full((2,), math.nan), torch.eye(2), torch.zeros(2), torch.eye(2)), "means must be finite"),
        (
            (torch.zeros(2), torch.eye(2), torch.zeros(2), torch.tensor([[1.0, 1.0], [0.0, 1.0]])),
            "covariance2 must be finite and symmetric",
        ),
        (
            (torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0])), torch.zeros(2), torch.eye(2)),
            r"covariance1 must be positive definite \(more samples than features, none .*, got eigenvalues from 0",
        ),
    ],
)
def test_wrong_arguments_of_kl(arguments, message):
    with pytest.raises(ValueError, match=f"gaussian_kl: {message}"):
        gaussian_kl(*arguments)


def fid_score():
    """pytorch-fid's module, where its distance can still be computed."""
    pytest.importorskip("pytorch_fid")
    scipy = pytest.importorskip("scipy")
    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) >= (1, 18):
        pytest.skip("pytorch-fid 0.3.0 passes an argument to sqrtm that SciPy 1.18 has no more")
    from langevin_ext.metrics.inception import _pytorch_fid

    _pytorch_fid()  # makes its torchvision importable beside a torch without CUDA
    import pytorch_fid.fid_score

    return pytorch_fid.fid_score


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
@pytest.mark.parametrize("size", [2, 17, 64])  # its call of sqrtm fails for 1 feature
def test_agreement_with_pytorch_fid(size):
    module = fid_score()
    first, second = random_gaussian(size, 3), random_gaussian(size, 4)
    for a, b in ((first, second), (second, first)):
        theirs = module.calculate_frechet_distance(*(value.numpy() for value in (*a, *b)))
        # their root of the unsymmetric product is good to about 1e-10 of the traces
        assert frechet_distance(*a, *b) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_agreement_with_pytorch_fid_on_samples_with_a_mean_shift():
    module = fid_score()
    a, b = noise.normal((500, 8), 5).double(), noise.normal((400, 8), 6).double() * 1.5 + 0.25
    theirs = module.calculate_frechet_distance(
        a.numpy().mean(0), np.cov(a.numpy(), rowvar=False), b.numpy().mean(0), np.cov(b.numpy(), rowvar=False)
    )
    assert frechet_samples(a, b) == pytest.approx(theirs, rel=1e-9)


def test_pytorch_fid_reads_our_statistics(saved):
    mean, covariance = fid_score().compute_statistics_of_path(str(saved), None, 50, 2048, "cpu")
    expected = gaussian_statistics(ROWS)
    assert np.array_equal(mean, expected[0].numpy()) and np.array_equal(covariance, expected[1].numpy())
