"""`langevin-ext evaluate`, run as a user runs it, against the functions it calls."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from langevin_ext import noise
from langevin_ext.cli import main
from langevin_ext.commands.image_sets import open_set
from langevin_ext.data import open_dataset
from langevin_ext.metrics import (
    ClassifierFeatures,
    PixelFeatures,
    bootstrap,
    frechet_samples,
    gaussian_statistics,
    inception_score,
    kid,
    load_statistics,
    memorisation,
    nearest,
    save_statistics,
    wasserstein,
)

DIGITS = open_dataset("digits", split="test").images
# digits with noise, some pixels outside [0, 1], as a sampler leaves them
SAMPLES = DIGITS[:120] / 255 + 0.1 * noise.normal((120, 1, 8, 8), 1)
CLIPPED = PixelFeatures(clip=True)


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *(str(argument) for argument in arguments)])


def sentence_of(result):
    """The one sentence of a failed command."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.strip().splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `sample` leaves: samples.npz with pictures beside it."""
    folder = tmp_path_factory.mktemp("sampled")
    np.savez_compressed(folder / "samples.npz", images=SAMPLES.numpy(), seed=0, first=0)
    Image.new("L", (50, 50)).save(folder / "grid.png")
    return folder


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """One run of several metrics: what it printed and what it wrote."""
    out = tmp_path_factory.mktemp("out")
    metrics = ["frechet-pixels", "frechet-classifier", "kid", "inception-score", "wasserstein", "nearest"]
    options = [word for metric in metrics for word in ("--metric", metric)]
    files = ("--out", out / "result.json")
    result = run(folder, "digits:test", *options, "--features", "classifier", "--bootstrap", 5, "--seed", 3, *files)
    assert result.exit_code == 0, result.output
    return result, json.loads((out / "result.json").read_text())


def test_every_metric_is_that_of_its_function(results):
    found = results[1]["metrics"]
    features = ClassifierFeatures("digits")
    a, b = features(SAMPLES), features(DIGITS)
    pixels = frechet_samples(SAMPLES, DIGITS, CLIPPED)
    assert found["frechet-pixels"]["value"] == pixels
    spread = bootstrap(frechet_samples, CLIPPED(SAMPLES), CLIPPED(DIGITS), 5, 3)
    assert found["frechet-pixels"]["deviation"] == pytest.approx(spread.deviation, rel=1e-9)
    assert found["frechet-classifier"]["value"] == pytest.approx(frechet_samples(a, b), rel=1e-9)
    assert (found["kid"]["value"], found["kid"]["deviation"]) == pytest.approx(kid(a, b, seed=3), rel=1e-9)
    score = inception_score(features.probabilities(SAMPLES))
    assert (found["inception-score"]["value"], found["inception-score"]["deviation"]) == pytest.approx(score, rel=1e-9)
    distances, indices = nearest(a, b, 2)
    assert found["nearest"]["value"] == pytest.approx(distances[:, 0].median().item(), rel=1e-9)
    assert found["nearest"]["second"] == pytest.approx(distances[:, 1].median().item(), rel=1e-9)
    assert found["nearest"]["nearest"] == indices[:, 0].tolist()
    pytest.importorskip("ot")
    assert found["wasserstein"]["value"] == pytest.approx(wasserstein(a, b), rel=1e-9)


def test_counts_and_features_are_printed_with_every_value(results):
    lines = results[0].stdout.splitlines()
    assert lines[0].endswith("samples.npz: 120 images of 1 x 8 x 8") and lines[0].startswith("samples")
    assert lines[1] == "reference  digits:test: 297 images of 1 x 8 x 8"
    values = {line.split()[0]: line for line in lines[2:]}
    assert set(values) == set(results[1]["metrics"])
    for name, line in values.items():
        counts = "120 samples" if name == "inception-score" else "120 against 297 samples"
        features = "clipped pixels" if name == "frechet-pixels" else "digits classifier"
        assert f"({features}, {counts})" in line, line


def test_the_record_says_what_the_results_depend_on(results, folder):
    record = results[1]
    assert record["samples"]["count"] == 120 and record["samples"]["shape"] == [1, 8, 8]
    assert len(record["samples"]["sha256"]) == 64
    assert record["reference"]["source"] == "digits:test" and record["reference"]["split"] == "test"
    assert record["reference"]["fingerprint"] == open_dataset("digits", split="test").fingerprint
    assert record["options"]["seed"] == 3 and record["options"]["bootstrap"] == 5 and "version" in record


def test_memorisation_compares_with_both_parts_whatever_the_limit(folder, tmp_path):
    files = ("--out", tmp_path / "r.json", "--picture", tmp_path / "pairs.png")
    result = run(folder, "digits", "--metric", "memorisation", "--limit", 50, *files)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "r.json").read_text())["metrics"]["memorisation"]
    train = open_dataset("digits", split="train").images
    expected = memorisation(SAMPLES[:50], train, DIGITS, CLIPPED)
    assert found["counts"] == [50, len(train), 297] and found["closer"] == expected.closer
    assert found["median_ratios"] == list(expected.medians) and found["copies"] == list(expected.copies)
    assert "50 samples and 297 held-out images against" in result.stdout
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.width > picture.height > 24


def test_few_samples_are_said_once_on_stderr(folder):
    result = run(folder, "digits:test", "--metric", "frechet-pixels", "--limit", 30, "--bootstrap", 3)
    assert result.exit_code == 0 and "(clipped pixels, 30 against 30 samples)" in result.stdout
    assert result.stderr.count("warning: ") == 1 and "30 samples are fewer than the 64 features" in result.stderr


def test_statistics_are_written_read_and_not_overwritten(folder, tmp_path):
    path = tmp_path / "digits.npz"
    first = run(folder, "digits:test", "--metric", "frechet-pixels", "--save-statistics", path)
    assert first.exit_code == 0, first.output
    found = load_statistics(path)
    assert torch.equal(found.mean, gaussian_statistics(CLIPPED(DIGITS))[0])
    assert found.provenance.items() >= {"source": "digits:test", "count": 297, "size": [1, 8, 8]}.items()
    second = run(folder, path, "--metric", "frechet-pixels", "--bootstrap", 4)
    assert second.exit_code == 0, second.output
    assert first.stdout.splitlines()[2] in second.stdout and "bootstrap deviation" in second.stdout
    assert f"reference  {path}: statistics of 297 samples in clipped pixels" in second.stdout
    both = run(path, path, "--metric", "frechet-pixels")
    assert both.exit_code == 0 and "(clipped pixels, 297 against 297 samples)" in both.stdout
    message = sentence_of(run(folder, "digits:test", "--metric", "frechet-pixels", "--save-statistics", path))
    assert "--save-statistics must be a new file" in message


def test_statistics_from_elsewhere(folder, tmp_path):
    mean, covariance = gaussian_statistics(CLIPPED(DIGITS))
    np.savez_compressed(tmp_path / "theirs.npz", mu=mean.numpy(), sigma=covariance.numpy())
    result = run(folder, tmp_path / "theirs.npz", "--metric", "frechet-pixels")
    assert "120 against an unknown number of samples" in result.stdout
    assert "statistics of an unknown number of samples in unknown features" in result.stdout


def test_folders_of_pictures_grey_and_coloured(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i:02}.png")
    whole = open_set(tmp_path)  # all pictures, not the nine of ten of a training part
    assert torch.equal(whole.images, torch.from_numpy(pixels).permute(0, 3, 1, 2)) and whole.shape == (3, 6, 5)
    assert len(open_set(f"{tmp_path}:test").images) == 1 and len(open_set(tmp_path, limit=5).images) == 5
    assert open_set(tmp_path, (4, 4), 1).shape == (1, 4, 4)
    # the reference is brought to the samples' form
    result = run(tmp_path, "digits:test", "--metric", "nearest", "--size", "8", "--limit", 9)
    assert result.exit_code == 0 and "digits:test: 9 images of 3 x 8 x 8" in result.stdout, result.output


def test_fid_on_random_weights(tmp_path):
    pytest.importorskip("pytorch_fid")
    from fid_weights import random_state

    torch.save(random_state(), tmp_path / "weights.pth")
    options = ("--limit", 3, "--weights", tmp_path / "weights.pth", "--device", "cpu", "--out", tmp_path / "r.json")
    result = run("digits:test", "digits:train", "--metric", "fid", "--metric", "kid", *options)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert found["fid"]["features"] == found["kid"]["features"] == "Inception pool3" and found["fid"]["value"] > 0
    assert "3 samples are fewer than the 2048 features" in result.stderr


def test_missing_inception_weights(folder, tmp_path, monkeypatch):
    pytest.importorskip("pytorch_fid")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = sentence_of(run(folder, "digits:test", "--metric", "fid"))
    assert "pt_inception-2015-12-05-6726825d.pth must be given as weights (--weights)" in message


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("none", "digits", "--metric", "kid"), "open_dataset: none: expected"),
        (("FOLDER", "none", "--metric", "kid"), "open_dataset: none: expected"),
        (("FOLDER:train", "digits", "--metric", "kid"), "samples must be named without a part, got"),
        (("FOLDER", "digits", "--metric", "nearest", "--size", "16"), "--size must be that of the samples, 8x8, got"),
        (("FOLDER", "digits", "--metric", "nearest", "--size", "big"), "--size must be like"),
        (("FOLDER", "STATISTICS", "--metric", "kid"), "REFERENCE must be images for this metric, got statistics"),
        (("STATISTICS", "digits", "--metric", "wasserstein"), "SAMPLES must be images for this metric, got statistics"),
        (("STATISTICS", "digits", "--metric", "inception-score"), "SAMPLES must be images"),
        (("FOLDER", "STATISTICS", "--metric", "fid"), "features of"),
        (("STATISTICS", "STATISTICS", "--metric", "frechet-classifier"), "features of"),
        (("STATISTICS", "digits", "--metric", "frechet-pixels", "--bootstrap", "9"), "--bootstrap must be 0 where"),
        (("FOLDER", "digits", "--metric", "frechet-pixels", "--bootstrap", "1"), "bootstrap: n must be at least 2"),
        (("FOLDER", "FOLDER", "--metric", "memorisation"), "REFERENCE must be a dataset with a training and a test"),
        (("FOLDER", "FOLDER", "--metric", "frechet-classifier"), "--classifier must be digits, glyphs or a file"),
        (("FOLDER", "digits", "--metric", "inception-score", "--features", "pixels"), "--features must be inception"),
        (("FOLDER", "digits", "--metric", "nearest", "--device", "gpu"), "--device must be cpu, cuda or cuda:N"),
        (("FOLDER", "digits", "--metric", "kid", "--save-statistics", "x.npz"), "--save-statistics needs one Frechet"),
        (("FOLDER", "digits", "--metric", "kid", "--out", "EXISTING"), "--out must be a new file, got"),
        (("FOLDER", "digits", "--metric", "memorisation", "--picture", "EXISTING"), "--picture must be a new file"),
        (("NAN", "digits", "--metric", "frechet-pixels"), "must be finite, got 1 rows that are not: [2]"),
        (("BROKEN", "digits", "--metric", "frechet-pixels"), "must be a whole file of samples"),
        (("INTEGERS", "digits", "--metric", "frechet-pixels"), "must hold float images (n, C, H, W), got torch.int64"),
    ],
)
def test_errors_are_one_sentence(arguments, words, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mean, covariance = gaussian_statistics(CLIPPED(DIGITS))
    about = {"source": "x", "count": 297, "features": "clipped pixels", "weights": None, "size": None}
    save_statistics("clipped.npz", mean, covariance, about)
    broken = SAMPLES[:5].clone()
    broken[2, 0, 1, 1] = torch.nan
    np.savez("nan.npz", images=broken.numpy(), seed=0, first=0)
    np.savez("integers.npz", images=np.zeros((2, 3), np.int64), seed=0, first=0)
    np.savez("broken.npz", images=np.array([None]), seed=0, first=0)
    names = {"FOLDER": folder, "FOLDER:train": f"{folder}:train", "STATISTICS": "clipped.npz", "NAN": "nan.npz"}
    names |= {"EXISTING": "nan.npz", "BROKEN": "broken.npz", "INTEGERS": "integers.npz"}
    before = set(tmp_path.iterdir())
    assert words in sentence_of(run(*(names.get(argument, argument) for argument in arguments)))
    assert set(tmp_path.iterdir()) == before
