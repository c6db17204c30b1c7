"""Nearest neighbours against a direct computation, and copies told from images that the model never saw."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from langevin_ext import noise, plots
from langevin_ext.data import open_dataset
from langevin_ext.metrics.features import unit
from langevin_ext.metrics.memorisation import Memorisation, memorisation, nearest

X = noise.uniform((7, 1, 4, 5), 1)
Y = noise.uniform((53, 1, 4, 5), 2)


@pytest.fixture(scope="module")
def digits():
    """1,000 training digits, 100 digits held out, 100 others."""
    train, test = open_dataset("digits"), open_dataset("digits", split="test")
    return train.images[:1000], test.images[:100], test.images[100:200]


def brute_force(x, y, k):
    """Distances and indices by the definition, in numpy."""
    difference = x.flatten(1).double().numpy()[:, None] - y.flatten(1).double().numpy()[None]
    distances = np.sqrt((difference**2).sum(-1))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), order


@pytest.mark.parametrize("k", [1, 2, 5, 53])
def test_nearest_is_the_definition(k):
    distances, indices = nearest(X, Y, k)
    expected, order = brute_force(X, Y, k)
    assert np.array_equal(indices.numpy(), order) and distances.dtype == torch.float64
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-14)  # sums of 20 squares in float64


@pytest.mark.parametrize("chunk", [1, 3, 8, 20, 53, 1000])
def test_chunks_change_no_bit(chunk):
    whole, parts = nearest(X, Y, 4), nearest(X, Y, 4, chunk=chunk)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_small_distances_between_large_vectors():
    # |x| = 1e6 and d = 1e-3: the expansion alone, with an error of about 1e-4 in d^2, would see nothing
    x = torch.full((1, 50), 1e6 / math.sqrt(50), dtype=torch.float64)
    steps = 1e-3 * (1 + (noise.words((40, 1), 3) % 40).double() / 40)  # distances in no order
    y = x + torch.cat([steps, torch.zeros(40, 49, dtype=torch.float64)], 1)
    distances, indices = nearest(x, y, 3)
    expected, order = brute_force(x, y, 3)
    assert np.array_equal(indices.numpy(), order) and np.array_equal(distances.numpy(), expected)
    assert distances.max() < 1.2e-3


def test_copies_have_distance_zero_and_ties_take_the_lower_index():
    y = torch.cat([Y, Y[:40], Y[5:6].expand(30, -1, -1, -1)])  # image 5 is there 32 times: more than the candidates
    for chunk in (7, 40, 1000):
        distances, indices = nearest(Y[[5, 45]], y, 4, chunk=chunk)
        assert (distances[0] == 0).all() and indices[0].tolist() == [5, 58, 93, 94]
        assert distances[1, 0] == 0 and indices[1, 0] == 45 and distances[1, 1] > 0


def test_features_and_eight_bits():
    class Halves:
        name = "halves"

        def __call__(self, images):
            return 0.5 * images.flatten(1).double()

    pixels, halves = nearest(X, Y), nearest(X, Y, features=Halves())
    assert torch.equal(halves[0], 0.5 * pixels[0]) and torch.equal(halves[1], pixels[1])
    assert torch.equal(nearest(X.flatten(1), Y.flatten(1))[0], pixels[0])
    eight = (255 * X).to(torch.uint8)
    assert torch.equal(nearest(eight, Y)[0], nearest(eight.float() / 255, Y)[0])
    assert memorisation(X, Y, X, Halves()).features == "halves"


def test_held_out_images_are_no_copies(digits):
    train, held_out, samples = digits
    found = memorisation(samples, train, held_out)
    assert found.counts == (100, 1000, 100) and found.features == "pixels"
    # both are 100 digits of the same law: the statistic is within 4 of its standard deviations of 1/2
    assert found.closer_error == pytest.approx(math.sqrt(201 / 120_000))
    assert abs(found.closer - 0.5) < 4 * found.closer_error
    assert found.copies == (0.0, 0.0) and min(found.medians) > 0.8 and abs(found.medians[0] - found.medians[1]) < 0.05


@pytest.mark.parametrize("level, ratio", [(0.0, 0.0), (0.02, 0.2)])
def test_copies_are_flagged(digits, level, ratio):
    train, held_out, _ = digits
    copies = unit(train[:60], "") + level * noise.normal((60, 1, 8, 8), 4)
    found = memorisation(copies, train, held_out)
    assert found.copies == (1.0, 0.0) and found.closer == 1.0 and found.medians[0] <= ratio
    assert found.indices[:, 0].tolist() == list(range(60))
    half = memorisation(torch.cat([copies[:50], unit(held_out[:50], "")]), train, held_out)
    assert half.copies[0] == 0.5 and 0.7 < half.closer < 0.8  # 1/2 1 + 1/2 1/2 on average


def test_an_image_that_is_there_twice_is_a_copy():
    found = memorisation(Y[:3], torch.cat([Y, Y]), X)
    assert found.ratios.tolist() == [0.0, 0.0, 0.0] and found.copies[0] == 1.0


def result(ours, theirs):
    """A result with the given nearest distances; the second ones are 1."""
    pairs = [torch.stack([torch.tensor(d, dtype=torch.float64), torch.ones(len(d))], 1) for d in (ours, theirs)]
    counts = len(ours), 2, len(theirs)
    return Memorisation(pairs[0], torch.zeros(len(ours), 2).long(), pairs[1], "pixels", counts, (X, Y))


def test_statistic_by_hand():
    # pairs (ours, theirs): .1 is below all four, .3 below .5 and .7 and equal to one .3, .9 below none
    found = result([0.1, 0.3, 0.9], [0.3, 0.5, 0.7, 0.2])
    assert found.closer == (4 + 2.5 + 0) / 12
    assert found.medians == (0.3, pytest.approx(0.4)) and found.copies == (pytest.approx(2 / 3), 0.5)
    assert result([1 / 3], [1 / 3 - 1e-12]).copies == (0.0, 1.0)
    same = result([0.2, 0.4], [0.4, 0.2])
    assert same.closer == 0.5


def test_says_what_it_found():
    lines = str(result([0.1, 0.3, 0.9], [0.3, 0.5, 0.7, 0.2])).splitlines()
    assert lines[0] == "memorisation in pixels: 3 samples and 4 held-out images against 2 training images"
    assert "0.3 " in lines[1] and "held out 0.4" in lines[1]
    assert "0.3000" in lines[2] and "0.6667" in lines[3] and "held out 0.5000" in lines[3]
    assert f"{6.5 / 12:.4f}" in lines[4] and f"0.5 +- {math.sqrt(8 / 144):.4f}" in lines[4]


def test_picture(tmp_path, monkeypatch):
    labels, trajectory = [], plots.trajectory
    monkeypatch.setattr(
        plots, "trajectory", lambda x, path, words, **o: labels.append(words) or trajectory(x, path, words, **o)
    )
    train = torch.zeros(3, 1, 8, 8)
    train[0], train[1], train[2] = 0.2, 0.4, 1.0
    samples = torch.tensor([0.5, 0.21]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    found = memorisation(samples, train, train[1:])
    # each of 64 pixels: .5 is .1 and .3 away, .21 is .01 and .19 away
    path = found.picture(tmp_path / "pairs.png")
    assert labels == [["0.05, 0.08", "0.33, 0.8"]]
    with Image.open(path) as picture:
        facts, pixels = picture.text["langevin_ext"], np.asarray(picture.convert("L"))
    assert '"samples": [1, 0]' in facts and '"sample", "nearest training image", "second nearest"' in facts
    assert pixels.shape == (15 + 4 + 3 * 68, 4 + 2 * 68)  # labels, then 8x8 enlarged 8 times with gaps of 4
    centres = pixels[15 + 4 + 32 :: 68, 4 + 32 :: 68]
    assert centres.tolist() == [[54, 128], [51, 102], [102, 51]]
    eight = (255 * samples + 0.5).to(torch.uint8), (255 * train + 0.5).to(torch.uint8)
    memorisation(eight[0], eight[1], eight[1]).picture(tmp_path / "eight.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "eight.png").convert("L"))[19:], pixels[19:])
    assert found.picture(tmp_path / "one.png", 1) and Image.open(tmp_path / "one.png").width < pixels.shape[1]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nearest(X, Y, 54), r"nearest: k must be an integer in \[1, 53\], got 54"),
        (lambda: nearest(X, Y, 0), r"nearest: k must be an integer in \[1, 53\], got 0"),
        (lambda: nearest(X, Y, True), r"nearest: k must be an integer in \[1, 53\], got True"),
        (lambda: nearest(X, Y, chunk=0), r"nearest: chunk must be an integer in \[1, inf\], got 0"),
        (lambda: nearest(X[:, :, 1:], Y), "nearest: samples and reference must be of one size, got 15 and 20 values"),
        (lambda: nearest([1.0], Y), r"nearest: samples must be a tensor \(n, C, H, W\) or \(n, D\), got list"),
        (lambda: nearest(X, Y[:0]), r"nearest: reference must be a tensor .*, got \(0, 1, 4, 5\)"),
        (
            lambda: nearest(torch.where(X > 0.99, math.nan, X).index_fill(0, torch.tensor([2]), math.inf), Y),
            r"nearest: samples must be finite, got \d of 7 that are not: \[.*2.*\]",
        ),
        (lambda: memorisation(X, Y, Y[0]), r"memorisation: held_out must be .*, got \(1, 4, 5\)"),
        (lambda: memorisation(X, Y[:1], X), r"nearest: k must be an integer in \[1, 1\], got 2"),
        (lambda: memorisation(X, Y[0, 0, 0], X), r"memorisation: train must be a tensor .*, got \(5,\)"),
        (lambda: result([0.1], [0.2]).picture("x.png", 0), "Memorisation.picture: count must be at least 1, got 0"),
        (
            lambda: memorisation(X.flatten(1), Y.flatten(1), X.flatten(1)).picture("x.png"),
            r"Memorisation.picture: samples and train must be images of one size, got \(\(7, 20\), \(53, 20\)\)",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_type():
    with pytest.raises(TypeError, match="nearest: samples must be float or uint8, got torch.int64"):
        nearest(torch.zeros(2, 20, dtype=torch.int64), Y)
