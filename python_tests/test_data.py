"""The dataset object, its batches, the visiting order, and the two built-in sources."""

import hashlib
import math
import sys

import numpy as np
import pytest
import torch

from langevin_ext import noise
from langevin_ext.data import ImageDataset, glyphs, indices_for, open_dataset, order


@pytest.fixture(scope="module")
def ramp():
    """Every byte value, in 256 images of 3 x 4 x 5 whose pixels differ from their neighbours."""
    v = (np.arange(256)[:, None, None, None] + np.arange(60).reshape(3, 4, 5)) % 256
    return ImageDataset(torch.from_numpy(v.astype(np.uint8)), name="ramp")


# The batch


def test_batch_is_v_plus_u_over_256(ramp):
    indices = torch.tensor([7, 255, 0, 7])
    x = ramp.batch(indices, seed=5, step=9, first=3)
    u = noise.uniform((4, 3, 4, 5), 5, step=9, first=3, stream=noise.DEQUANTISE)
    expected = (ramp.images[indices].double() + u.double()) / 256
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), expected, rtol=2**-24, atol=0)  # one rounding of v + u


def test_batch_stays_in_its_byte_and_has_the_right_mean(ramp):
    x = ramp.batch(range(256), seed=1, step=0)
    v = ramp.images.double()
    assert x.min() > 0 and x.max() <= 1
    residual = x.double() * 256 - v
    assert residual.min() >= 0 and residual.max() <= 1
    n = residual.numel()
    assert abs(residual.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(residual.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)


def test_batch_without_dequantisation_is_v_over_255(ramp):
    x = ramp.batch([0, 255, 128], seed=1, step=0, dequantise=False)
    assert torch.equal(x, ramp.images[[0, 255, 128]].float() / 255)


@pytest.mark.parametrize("flip", [False, True])
def test_pieces_of_a_batch_equal_the_whole_bit_for_bit(ramp, flip):
    indices = torch.arange(100) * 7 % 256
    whole = ramp.batch(indices, seed=11, step=4, flip=flip)
    cuts = [0, 1, 3, 50, 50, 100]
    pieces = [
        ramp.batch(indices[a:b], seed=11, step=4, first=a, flip=flip) for a, b in zip(cuts, cuts[1:], strict=False)
    ]
    assert torch.equal(torch.cat(pieces), whole)
    assert torch.equal(ramp.batch(indices.tolist(), seed=11, step=4, flip=flip), whole)
    for other in ({"seed": 12, "step": 4}, {"seed": 11, "step": 5}, {"seed": 11, "step": 4, "first": 1}):
        assert not torch.equal(ramp.batch(indices, **other, flip=flip), whole)


def test_flip_mirrors_half_of_the_samples_by_the_flip_stream(ramp):
    n = 4000
    indices = torch.arange(n) % 256
    x = ramp.batch(indices, seed=2, step=1, flip=True, dequantise=False)
    plain = ramp.images[indices].float() / 255
    mirrored = (x == plain.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, noise.uniform((n,), 2, step=1, stream=noise.FLIP) < 0.5)
    assert torch.equal(x[~mirrored], plain[~mirrored])
    assert abs(mirrored.double().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_flip_does_not_change_the_noise(ramp):
    """The dequantisation of row i is laid on the picture as shown, so it is the same with and without flips."""
    x = ramp.batch(range(64), seed=2, step=1, flip=True)
    shown = ramp.batch(range(64), seed=2, step=1, flip=True, dequantise=False) * 255
    u = noise.uniform((64, 3, 4, 5), 2, step=1, stream=noise.DEQUANTISE)
    torch.testing.assert_close(x, (shown + u) / 256, rtol=1e-6, atol=0)


def test_batch_leaves_the_images_alone(ramp):
    before = ramp.images.clone()
    ramp.batch(range(256), seed=0, step=0, flip=True)
    assert torch.equal(ramp.images, before)


def test_empty_batch(ramp):
    assert ramp.batch([], seed=0, step=0, flip=True).shape == (0, 3, 4, 5)


@pytest.mark.parametrize(
    "indices, error, message",
    [
        ([0, 256], IndexError, r"batch: indices must be in \[0, 256\), got 0 to 256"),
        ([-1], IndexError, r"batch: indices must be in \[0, 256\), got -1 to -1"),
        ([0.5], TypeError, r"batch: indices must be integers of shape \(B,\), got torch.float32 \(1,\)"),
        ([[1]], TypeError, r"batch: indices must be integers of shape \(B,\), got torch.int64 \(1, 1\)"),
    ],
)
def test_batch_refuses(ramp, indices, error, message):
    with pytest.raises(error, match=message):
        ramp.batch(indices, seed=0, step=0)


# The dataset


def test_fingerprint_is_the_sha256_of_shape_and_pixels(ramp):
    expected = hashlib.sha256(b"(256, 3, 4, 5)" + ramp.images.numpy().tobytes()).hexdigest()
    assert ramp.fingerprint == expected
    assert ImageDataset(ramp.images.reshape(256, 3, 5, 4)).fingerprint != expected
    assert ImageDataset(ramp.images.flip(0)).fingerprint != expected
    strided = ramp.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert ImageDataset(strided).fingerprint == expected


@pytest.mark.parametrize(
    "images, labels, error, message",
    [
        (torch.zeros(2, 1, 3, 3), None, TypeError, r"must be a uint8 tensor \(N, C, H, W\), got torch.float32"),
        (np.zeros((2, 1, 3, 3), np.uint8), None, TypeError, r"must be a uint8 tensor \(N, C, H, W\), got ndarray"),
        (torch.zeros(0, 1, 3, 3, dtype=torch.uint8), None, ValueError, r"at least one pixel, got \(0, 1, 3, 3\)"),
        (torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ValueError, r"int64 \(2,\)"),
    ],
)
def test_dataset_refuses(images, labels, error, message):
    with pytest.raises(error, match=message):
        ImageDataset(images, labels)


def test_split_of_a_tensor_is_refused(ramp):
    assert ramp.split("all") is ramp
    with pytest.raises(ValueError, match="split: ramp must come from open_dataset to have a part 'test', got a tensor"):
        ramp.split("test")
    with pytest.raises(ValueError, match="split: which must be one of train, test, all, got 'val'"):
        ramp.split("val")


# The order


@pytest.mark.parametrize("n", [1, 2, 7, 1500])
def test_order_is_a_permutation_by_the_order_stream(n):
    p = order(3, n, 42)
    assert torch.equal(p.sort().values, torch.arange(n))
    words = noise.words((n,), 42, step=3, stream=noise.ORDER).tolist()
    assert p.tolist() == sorted(range(n), key=words.__getitem__)


def test_order_differs_by_epoch_and_seed():
    orders = {tuple(order(epoch, 50, seed).tolist()) for epoch in range(4) for seed in range(4)}
    assert len(orders) == 16


def test_order_visits_each_place_evenly():
    """chi^2 of the place of image 0 over 2,000 epochs of 10; 9 degrees of freedom, 1e-5 quantile 39.3."""
    places = torch.stack([order(epoch, 10, 0) for epoch in range(2000)]).argmin(1)
    counts = torch.bincount(places, minlength=10).double()
    assert ((counts - 200) ** 2 / 200).sum() < 39.3


@pytest.mark.parametrize("batch_size", [1, 4, 10, 23])
def test_indices_run_through_the_epochs_without_a_gap(batch_size):
    n, steps = 10, 12
    sequence = torch.cat([order(epoch, n, 6) for epoch in range(batch_size * steps // n + 1)])
    batches = [indices_for(step, batch_size, n, 6) for step in range(steps)]
    assert torch.equal(torch.cat(batches), sequence[: batch_size * steps])
    assert torch.equal(indices_for(7, batch_size, n, 6), batches[7])  # a resumed run needs the step alone


def test_order_refuses():
    with pytest.raises(ValueError, match="order: n must be at least 1, got 0"):
        order(0, 0, 0)
    with pytest.raises(ValueError, match="indices_for: step must be >= 0, .* got -1, 4 and 10"):
        indices_for(-1, 4, 10, 0)
    with pytest.raises(ValueError, match="indices_for: .* got 0, 0 and 10"):
        indices_for(0, 0, 10, 0)


# Digits


def test_digits_are_scaled_from_16_to_255():
    sklearn = pytest.importorskip("sklearn.datasets")
    raw = sklearn.load_digits()
    table = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    everything = open_dataset("digits", split="all")
    assert torch.equal(everything.images[:, 0], torch.tensor(table, dtype=torch.uint8)[raw.images.astype(int)])
    assert everything.labels.tolist() == raw.target.tolist()


def test_digits_split_is_disjoint_balanced_and_fixed():
    pytest.importorskip("sklearn")
    train = open_dataset("digits")
    test, everything = train.split("test"), train.split("all")
    assert (train.which, test.which, len(train), len(test), len(everything)) == ("train", "test", 1500, 297, 1797)
    assert torch.bincount(test.labels).tolist() == [30] * 7 + [29] * 3
    rows = lambda d: [image.numpy().tobytes() for image in d.images]  # noqa: E731
    assert sorted(rows(train) + rows(test)) == sorted(rows(everything))
    assert test.fingerprint == "668b7196e920c2c1bb20ae6bc5482c40618ca18311ac71d416a2242562197b93"
    assert torch.equal(open_dataset("digits", split="test", limit=5).images, test.images[:5])


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs scikit-learn, .*pip install 'langevin_ext\[demo\]'"):
        open_dataset("digits")


# Glyphs


def pooled(images, f):
    n, c, h, w = images.shape
    return images.double().reshape(n, c, h // f, f, w // f, f).mean((3, 5))


@pytest.mark.parametrize("coarse, fine", [(16, 32), (32, 64), (8, 64), (12, 24), (20, 40)])
def test_coarse_glyphs_are_the_fine_ones_averaged(coarse, fine):
    """Each side is within 1/2 of the exact mean of the canvas, so their difference is at most 1."""
    a = open_dataset("glyphs", coarse, limit=100).images.double()
    b = pooled(open_dataset("glyphs", fine, limit=100).images, fine // coarse)
    assert (a - b).abs().max() <= 1
    assert abs((a - b).mean()) < 0.05  # rounded to the nearest, not down


def test_glyphs_depend_on_split_and_index_alone():
    a, b = open_dataset("glyphs", 16, limit=40), open_dataset("glyphs:70", 16)
    assert len(b) == 70 and torch.equal(a.images, b.images[:40]) and torch.equal(a.labels, b.labels[:40])
    late = glyphs.draw_jitter(0, 5, first=30)
    assert torch.equal(torch.from_numpy(glyphs.render({k: v[2] for k, v in late.items()}, 16)), a.images[32, 0])
    test = open_dataset("glyphs:70", 16, split="test", limit=40)
    assert not torch.equal(test.images, a.images)
    everything = open_dataset("glyphs:70", 16, split="all", limit=110)
    assert torch.equal(everything.images, torch.cat([b.images, test.images]))
    assert torch.equal(open_dataset("glyphs", 16, limit=40, channels=3).images, a.images.expand(-1, 3, -1, -1))


def test_glyphs_jitter_covers_its_ranges():
    jitter = glyphs.draw_jitter(0, 20_000)
    assert (np.bincount(jitter["label"], minlength=62) > 200).all() and jitter["label"].max() == 61
    assert (np.bincount(jitter["face"], minlength=12) > 1400).all() and jitter["face"].max() == 11
    for key, low, high in (("scale", 0.85, 1.3), ("dx", -0.12, 0.12), ("dy", -0.12, 0.12)):
        values = jitter[key]
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / math.sqrt(12 * 20_000)
    assert abs(np.degrees(jitter["angle"]).max() - 12) < 0.01 and abs(np.degrees(jitter["angle"]).min() + 12) < 0.01


def plain_glyph(character, face=0, **changes):
    values = {"label": glyphs.CHARACTERS.index(character), "face": face, "angle": 0.0, "scale": 1.0, "dx": 0.0, "dy": 0}
    return glyphs.render(values | changes, 32).astype(float)


def ink_centre(image):
    rows, columns = np.nonzero(image > 127)
    return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


def test_glyphs_without_jitter_are_centred_and_upright():
    for character in "AHIOXo8":
        row, column = ink_centre(plain_glyph(character))
        assert abs(row - 15.5) <= 0.5 and abs(column - 15.5) <= 0.5
    image = plain_glyph("H")
    assert np.abs(image - image[:, ::-1]).mean() < 8  # mirror symmetry of the upright letter
    assert (plain_glyph("L")[:16, 20:] == 0).all()  # neither mirrored nor upside down


def test_glyphs_jitter_moves_turns_and_scales_the_ink():
    row, column = ink_centre(plain_glyph("o", dx=0.125, dy=-0.125))
    assert abs(column - 19.5) <= 0.5 and abs(row - 11.5) <= 0.5
    columns = lambda image: np.nonzero(image > 127)[1].mean()  # noqa: E731
    turned = plain_glyph("I", angle=math.radians(12))
    assert columns(turned[:16]) - columns(turned[16:]) > 1  # clockwise: the top leans right
    assert abs(plain_glyph("o", scale=1.3).sum() / plain_glyph("o").sum() - 1.69) < 0.05
    assert plain_glyph("l", face=1).sum() > 1.4 * plain_glyph("l").sum()  # bold


def test_glyphs_are_never_cut():
    images = open_dataset("glyphs", 32, limit=400).images[:, 0]
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    assert border.max() == 0
    assert (images.flatten(1).max(1).values > 150).all()


@pytest.mark.parametrize(
    "spec, size, message",
    [
        ("glyphs:0", None, "glyphs: expected glyphs or glyphs:N with N at least 1, got glyphs:0"),
        ("glyphs:many", None, "glyphs: expected glyphs or glyphs:N with N at least 1, got glyphs:many"),
        ("glyphs", (16, 32), r"glyphs: expected a square size, got \(16, 32\)"),
        ("glyphs", 10**6, "glyphs: expected at most 8 GiB of pixels .*, got 10000000000000000 bytes"),
    ],
)
def test_glyphs_refuse(spec, size, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(spec, size)
