"""The classifiers that come with the package, and distances in their features."""

import pytest
import torch
from torch.nn import functional

import langevin_ext
from langevin_ext import noise
from langevin_ext.data import open_dataset
from langevin_ext.metrics import frechet_samples
from langevin_ext.metrics.features import ClassifierFeatures
from langevin_ext.models import Classifier
from langevin_ext.models.classifier import resize
from langevin_ext.training import describe
from langevin_ext.training.checkpoint import SHIPPED


@pytest.mark.parametrize("name, size, low", [("digits", None, 0.98), ("glyphs", 32, 0.95), ("glyphs", 16, 0.95)])
def test_shipped_classifiers_know_their_test_images(name, size, low):
    """The accuracy of the file's metadata, found again; at 16 pixels through the classifier's own enlargement."""
    features = ClassifierFeatures(name)
    data = open_dataset(name, size, split="test")
    found = (features.probabilities(data.images).argmax(1) == data.labels).double().mean().item()
    facts = describe(f"{name}-classifier")
    stated = facts["metadata"]["accuracy"]["test at half resolution" if size == 16 else "test"]
    # at 16 pixels the dataset rounds to 8 bits, which may turn a few of 1,000 images
    assert found == pytest.approx(stated, abs=0.005 if size == 16 else 1e-9) and found > low
    assert facts["bytes"] < 500_000 and facts["config"]["dimension"] == 64
    assert facts["metadata"]["command"].startswith(f"langevin-ext train-classifier {name} ")


def test_shipped_files_are_all_known():
    assert {path.stem for path in SHIPPED.glob("*-classifier.safetensors")} == {
        "digits-classifier",
        "glyphs-classifier",
    }


@pytest.fixture(scope="module")
def digits():
    return ClassifierFeatures("digits")


@pytest.fixture(scope="module")
def images():
    return open_dataset("digits", split="test").images


def test_features_are_those_of_the_network(digits, images):
    rows = digits(images)
    assert rows.shape == (297, 64) and rows.dtype == torch.float64 and digits.name == "digits classifier"
    expected = digits.model.double().features(images.double() / 255)
    digits.model.float()
    torch.testing.assert_close(rows, expected.detach(), rtol=1e-4, atol=1e-5)
    probabilities = digits.probabilities(images)
    assert probabilities.shape == (297, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(297, dtype=torch.float64))
    torch.testing.assert_close(probabilities, (rows @ digits.model.linear.weight.double().T + bias(digits)).softmax(1))


def bias(features):
    return features.model.linear.bias.detach().double()


@pytest.mark.parametrize("batch_size", [1, 7, 297])
def test_batches_change_the_rounding_only(digits, images, batch_size):
    whole, parts = digits(images), ClassifierFeatures("digits", batch_size=batch_size)(images)
    # float32 sums of 648 products at most, in another order; features are of size 1
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_clips_as_a_png_would_and_takes_eight_bits(digits, images):
    x = images[:9].float() / 255
    assert torch.equal(digits(x), digits(images[:9]))
    wide = torch.where(x == 0, -3.0, torch.where(x == 1, 7.0, x))
    assert torch.equal(digits(wide), digits(x)) and not torch.equal(wide, x)


def test_grey_images_for_a_colour_classifier(tmp_path):
    langevin_ext.save(tmp_path / "colour.safetensors", Classifier((3, 8, 8), 4, 3, 5))
    features = ClassifierFeatures(tmp_path / "colour.safetensors")
    grey = torch.rand(3, 1, 8, 8)
    assert torch.equal(features(grey), features(grey.expand(-1, 3, -1, -1))) and features.name == "colour classifier"


def test_distance_tells_good_images_from_bad(digits, images):
    """Training digits are nearer to test digits than noisy, blurred or one-sided ones are."""
    x = images.float() / 255
    train = open_dataset("digits", limit=297)
    good = frechet_samples(train.images, x, digits)
    assert "digits classifier, 297 against 297" in str(good)
    blurred = resize(functional.avg_pool2d(train.images.float() / 255, 2), (8, 8))
    noisy = train.images.float() / 255 + 0.2 * noise.normal((297, 1, 8, 8), 5)
    one = train.images[train.labels == 1].float() / 255
    bad = [frechet_samples(other, x, digits) for other in (blurred, noisy)]
    assert all(value > 2 * good for value in bad) and len(one) > 20, (good, bad)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda f: ClassifierFeatures("cifar"),
            FileNotFoundError,
            "name must be digits, glyphs or a file, got 'cifar'",
        ),
        (
            lambda f: ClassifierFeatures(SHIPPED / "digits.safetensors"),
            ValueError,
            "ClassifierFeatures: name must be a classifier's checkpoint, got a NCSN",
        ),
        (lambda f: ClassifierFeatures(batch_size=0), ValueError, "batch_size must be an integer of at least 1, got 0"),
        (
            lambda f: f(torch.zeros(2, 3, 8, 8)),
            ValueError,
            r"ClassifierFeatures: images must be \(n, 1, H, W\), got \(2, 3, 8, 8\)",
        ),
        (lambda f: f(torch.zeros(0, 1, 8, 8)), ValueError, r"images must be \(n, 1, H, W\), got \(0, 1, 8, 8\)"),
        (
            lambda f: f(torch.full((2, 1, 8, 8), torch.nan)),
            ValueError,
            "images must be finite, got 2 of 2 that are not",
        ),
        (lambda f: f(torch.zeros(2, 1, 8, 8).long()), TypeError, "images must be float or uint8, got torch.int64"),
    ],
)
def test_wrong_features(digits, call, error, message):
    with pytest.raises(error, match=message):
        call(digits)
