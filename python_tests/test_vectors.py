"""Vectors as data: the laws of the toy distributions, .npy files, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from data_files import refuses

from langevin_ext.data import SOURCES, VectorDataset, open_dataset, vectors

NAMES = ("mixture2d", "checkerboard", "swiss-roll", "rings")
N = 20_000
FOUR = 4 / math.sqrt(N)  # four standard errors of a mean of unit variance


def points(name):
    x, labels = vectors.draw(name, N, seed=1)
    return x.flatten(1).double(), labels


def test_mixture():
    x, label = points("mixture2d")
    assert abs(label.double().mean() - 0.8) < 0.4 * FOUR  # sqrt(.8 .2) = .4
    z = x - 5 * (2 * label[:, None] - 1)
    assert (z.mean(0).abs() < FOUR).all() and ((z.var(0) - 1).abs() < math.sqrt(2) * FOUR).all()
    assert (z[:, 0] * z[:, 1]).mean().abs() < FOUR


def test_checkerboard():
    x, label = points("checkerboard")
    cell = ((x + 4) / 2).floor().long()
    assert (cell >= 0).all() and (cell <= 3).all() and ((cell.sum(1) % 2) == 0).all()
    assert torch.equal(label, 2 * cell[:, 0] + cell[:, 1] // 2)
    share = label.bincount(minlength=8) / N
    assert (share - 1 / 8).abs().max() < math.sqrt(7 / 64) * FOUR
    inside = (x + 4) / 2 - cell  # uniform on the unit square
    assert ((inside.mean(0) - 0.5).abs() < FOUR / math.sqrt(12)).all()
    assert ((inside.var(0) - 1 / 12).abs() < FOUR / math.sqrt(180)).all()  # variance of (u - 1/2)^2 is 1/180


def test_swiss_roll():
    x, label = points("swiss-roll")
    assert label is None
    # |x|^2 = (r^2 + 2 r n + |z|^2) / 25, r uniform on [1.5 pi, 4.5 pi]: mean (13 (1.5 pi)^2 / 3 + 2) / 25
    square = x.square().sum(1)
    expected = (13 / 3 * (1.5 * math.pi) ** 2 + 2) / 25
    assert abs(square.mean() - expected) < square.std() * FOUR
    # mean of r cos r over the three half turns: (r sin r + cos r) from 1.5 pi to 4.5 pi, over 3 pi
    first = (4.5 * math.pi + 1.5 * math.pi) / (3 * math.pi) / 5
    assert abs(x[:, 0].mean() - first) < x[:, 0].std() * FOUR
    second = 0.0 + (math.sin(4.5 * math.pi) - math.sin(1.5 * math.pi)) / (3 * math.pi) / 5  # (sin r - r cos r)
    assert abs(x[:, 1].mean() - second) < x[:, 1].std() * FOUR


def test_rings():
    x, label = points("rings")
    assert (label.bincount(minlength=4) / N - 1 / 4).abs().max() < math.sqrt(3 / 16) * FOUR
    # the radius around each circle of radius R: mean R + .08^2 / (2 R), standard deviation .08
    for k in range(4):
        radius = x[label == k].norm(dim=1)
        ring = 0.75 * (k + 1)
        assert abs(radius.mean() - ring - 0.0064 / (2 * ring)) < 4 * 0.08 / math.sqrt(len(radius))
        assert abs(radius.var() - 0.0064) < 4 * 0.0064 * math.sqrt(2 / len(radius))
    assert (x.mean(0).abs() < x.std(0) * FOUR).all()


@pytest.mark.parametrize("name", NAMES)
def test_points_are_a_function_of_their_place(name):
    whole, _ = vectors.draw(name, 50, seed=3)
    part, _ = vectors.draw(name, 20, seed=3, first=30)
    assert torch.equal(whole[30:], part) and whole.shape == (50, 2, 1, 1) and whole.dtype == torch.float32
    assert not torch.equal(whole, vectors.draw(name, 50, seed=4)[0])
    data = open_dataset(f"{name}:30")
    assert torch.equal(data.vectors, vectors.draw(name, 30, seed=vectors.SEED)[0]) and data.shape == (2, 1, 1)
    assert torch.equal(open_dataset(name, limit=30).vectors, data.vectors) and data.name == f"{name}:30"
    test = data.split("test")
    assert len(test) == 10_000 and len(open_dataset(name)) == 50_000 and len(data.split("all")) == 10_030
    assert not torch.isin(test.vectors[:, 0], data.vectors[:, 0]).any()
    assert (data.labels is None) == (name == "swiss-roll") and (data.labels is None or len(data.labels) == 30)
    assert repr(data) == f"VectorDataset({name}:30, train: 30 vectors of 2 x 1 x 1)"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f8"])
def test_npy_vectors_are_used_as_they_are(tmp_path, dtype):
    array = np.arange(-30, 39, dtype=np.float64).reshape(23, 3).astype(dtype) / 4
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    data = open_dataset(tmp_path / "a.npy")
    kept = torch.from_numpy(array.astype(np.float32))[:, :, None, None]
    train = [i for i in range(23) if i not in (9, 19)]
    assert isinstance(data, VectorDataset) and data.shape == (3, 1, 1) and data.labels is None
    assert torch.equal(data.vectors, kept[train]) and torch.equal(data.split("test").vectors, kept[[9, 19]])
    assert torch.equal(open_dataset(f"vectors:{tmp_path}/a.npy", limit=5).vectors, kept[:5])
    batch = data.batch(torch.tensor([3, 0]), seed=1, step=2, dequantise=True)
    assert torch.equal(batch, kept[[3, 0]])
    other = open_dataset(tmp_path / "a.npy", split="all")
    assert data.fingerprint != other.fingerprint == VectorDataset(kept).fingerprint


def test_refusals(tmp_path):
    np.save(tmp_path / "nan.npy", np.array([[0.0, 1.0], [math.nan, 0.0]]))
    np.save(tmp_path / "ints.npy", np.zeros((3, 2), np.int64))
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    refuses(tmp_path / "nan.npy", r"nan\.npy: expected finite numbers, got others in row 1")
    refuses(tmp_path / "none.npy", r"none\.npy: expected at least one number, got shape \(0, 2\)")
    refuses(f"vectors:{tmp_path}/ints.npy", r"ints\.npy: expected a whole \.npy file of floats \(N, D\), got something")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    refuses(tmp_path / "a.npy", r"a\.npy: expected no size and no channels, which vectors do not have", size=8)
    refuses("rings", r"rings: expected no size and no channels, .* got \(None, 1\)", channels=1)
    refuses("rings:0", r"rings: expected rings or rings:N with N at least 1, got rings:0")
    refuses("swiss-roll:x", r"swiss-roll: expected swiss-roll or swiss-roll:N with N at least 1, got swiss-roll:x")
    refuses("rings:9999999999", r"rings: expected at most 8 GiB")
    assert set(NAMES) <= set(SOURCES)
    with pytest.raises(ValueError, match=r"draw: name must be one of mixture2d, .*, got 'moons'"):
        vectors.draw("moons", 3, seed=0)


def test_vectors_are_no_images():
    data = open_dataset("rings:5")
    with pytest.raises(ValueError, match=r"rings:5: expected images, got vectors of length 2, which only train takes"):
        data.images  # noqa: B018
    with pytest.raises(ValueError, match=r"batch: flip must be False for vectors, got True"):
        data.batch([0], flip=True)
    with pytest.raises(IndexError, match=r"batch: indices must be in \[0, 5\), got 0 to 5"):
        data.batch([0, 5])
    with pytest.raises(TypeError, match=r"VectorDataset: vectors must be a float32 tensor \(N, D, .*, got .*float64"):
        VectorDataset(torch.zeros(3, 2, 1, 1, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"VectorDataset: vectors must be a float32 tensor .* got list"):
        VectorDataset([1.0])
    for wrong in (torch.zeros(3, 2, 2, 1), torch.zeros(0, 2, 1, 1), torch.full((1, 2, 1, 1), math.inf)):
        with pytest.raises(ValueError, match=r"VectorDataset: vectors must be finite numbers \(N, D, 1, 1\), at least"):
            VectorDataset(wrong)
    with pytest.raises(ValueError, match=r"VectorDataset: labels must be int64 \(3,\), got torch.int64 \(2,\)"):
        VectorDataset(torch.zeros(3, 2, 1, 1), torch.zeros(2, dtype=torch.int64))
