"""`langevin-ext table`, run as a user runs it."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import langevin_ext
from langevin_ext.cli import main
from langevin_ext.models import NCSN
from langevin_ext.models.fsrcnn import FSRCNN

EXACT = ("--exact", "4x4", "--steps-each", 2, "--samples", 30, "-n", 10, "--batch-size", 20)


def call(*arguments):
    return CliRunner().invoke(main, ["table", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained networks and an upsampler."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, model in (("low", NCSN((1, 8, 8), ngf=4)), ("high", NCSN((1, 16, 16), ngf=4)), ("up", FSRCNN(8, 4, 1))):
        langevin_ext.save(folder / f"{name}.safetensors", model)
    return folder


def test_exact_scores(tmp_path):
    out = tmp_path / "t"
    result = call(1, *EXACT, "--out", out)
    assert result.exit_code == 0, result.output
    assert "exact law" in result.output and "Upsampling: bicubic; the paper's table has FSRCNN." in result.output
    names = {path.name for path in out.iterdir()}
    trajectories = {f"trajectory-{name}.png" for name in ("LRS-up-HRS-3", "LRS-up-HRS-9", "LRS-2-up-HRS-9")}
    assert names == {"table.md", "table.csv", "table.json", "quality.png", "samples", "status.json"} | trajectories
    held = json.loads((out / "table.json").read_text())
    assert held["provenance"]["models"] == {"exact": "GaussianField of 4x4"}
    assert held["settings"]["n"] == 30 and held["settings"]["n_steps_each"] == 2 and not held["settings"]["denoise"]
    with Image.open(out / "trajectory-LRS-up-HRS-3.png") as picture:
        columns = 10 + 1 + 3  # cells of 64 pixels and gaps of 8
        assert picture.size == (columns * 72 + 8, 8 * 72 + 8 + 15) and picture.mode == "RGB"
    again = call(1, *EXACT, "--out", out)
    assert again.exit_code == 1 and "must be a new or empty folder" in again.stderr
    assert "Traceback" not in again.output


def test_dry_run_writes_nothing(tmp_path):
    result = call(4, *EXACT, "--out", tmp_path / "t", "--dry-run")
    assert result.exit_code == 0 and "30 samples of 9 schemes" in result.output and not (tmp_path / "t").exists()
    assert "LRS-8-up-HRS-3  16 evaluations at 2x2, 6 evaluations at 4x4; in the paper FID 37.08, 0.563" in result.output


def test_networks_and_an_upsampler(tmp_path, models):
    out, pair = tmp_path / "t", ("--low", models / "low.safetensors", "--high", models / "high.safetensors")
    arguments = ("--steps-each", "2,1", "--samples", 4, "-n", 4, "--upsample", models / "up.safetensors", "--denoise")
    arguments += ("--reference", "digits", "--split", "test", "--eps", "1e-5,2e-5", "--device", "cpu")
    result = call(1, *pair, *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Upsampling: FSRCNN." in result.output and "digits classifier, 4 samples" in result.output
    assert result.stderr.count("warning: ") == result.stderr.count("fewer than") == 1  # said once, not for each row
    held = json.loads((out / "table.json").read_text())
    assert held["settings"]["eps"] == [1e-5, 2e-5] and held["settings"]["n_steps_each"] == [2, 1]
    assert held["settings"]["denoise"] and held["provenance"]["reference"] == "digits"
    assert [len(facts["sha256"]) for facts in held["provenance"]["models"]] == [64, 64]
    assert "digits, test: " in held["rows"][0]["reference"] and "1x8x8" in held["rows"][0]["reference"]
    upsampler = langevin_ext.load(models / "up.safetensors")
    pair = [langevin_ext.load(models / f"{name}.safetensors") for name in ("low", "high")]
    settings = {"n_steps_each": [2, 1], "eps": [1e-5, 2e-5], "batch_size": 100, "progress": False}
    expected = langevin_ext.sample(pair, "LRS-up-HRS-3", 4, upsample=upsampler, **settings)
    with np.load(out / "samples" / "LRS-up-HRS-3.npz") as file:
        assert np.array_equal(file["images"], expected.numpy())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--low", "digits"), "--low and --high must both be given, or --exact"),
        ((*EXACT, "--low", "digits"), "--exact takes the place of --low, --high and --shape"),
        ((*EXACT, "--reference", "digits"), "--exact compares pixels with the exact law"),
        ((*EXACT, "--metric", "fid"), "--exact compares pixels with the exact law"),
        (("--exact", "4x4x4"), "--size"),
        (("--exact", "5x4"), "pooled: argument factor must divide 5 and 4"),
        (("--low", "digits", "--high", "digits"), "--reference must be given"),
        (("--low", "digits", "--high", "digits", "--reference", "digits"), "twice the height and width"),
        ((*EXACT, "--upsample", "lanczos"), "--upsample must be one of"),
        ((*EXACT, "--eps", "x"), "--eps must be a number"),
    ],
)
def test_messages(tmp_path, arguments, message):
    result = call(1, *arguments, "--out", tmp_path / "t")
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "t").exists()


def test_numbers_are_1_to_4(tmp_path):
    result = call(5, *EXACT, "--out", tmp_path / "t")
    assert result.exit_code == 2 and "5 is not in the range 1<=x<=4" in result.stderr
