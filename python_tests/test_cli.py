"""The commands, run as a user runs them, on a network small enough for seconds."""

import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import langevin_ext
from langevin_ext.cli import main
from langevin_ext.commands.inpaint import known_mask
from langevin_ext.models import NCSN

WRITTEN = {"samples.npz", "grid.png", "trajectory.png", "settings.json", "status.json"}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def sentence_of(result):
    """The one sentence of a failed command; a traceback would have its exception in `result`."""
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small trained network: 3 steps, which is enough to run but not to draw digits."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = run(
        "train",
        "digits",
        "--out",
        folder,
        "--ngf",
        4,
        "--steps",
        3,
        "--batch-size",
        8,
        "--log-every",
        1,
        "--sigmas",
        1,
        0.1,
        3,
    )
    assert result.exit_code == 0, result.output
    return folder / "model.safetensors"


def test_info_says_what_runs():
    facts = json.loads(run("info", "--json").output)
    assert facts == langevin_ext.backend_info()
    text = run("info").output
    assert ("native core:  runs" in text) == facts["native"] == ("int16 engine: " in text)
    assert facts["cuda_runs"] or facts["cuda_reason"] in text


def test_train_writes_model_log_and_curve(checkpoint):
    folder = checkpoint.parent
    written = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "checkpoint.safetensors", "log.jsonl", "loss.png"} <= written
    model = langevin_ext.load(checkpoint)
    assert model.shape == (1, 8, 8) and len(model.sigmas) == 3
    assert langevin_ext.training.describe(checkpoint)["metadata"]["steps"] == 3


def test_train_tells_the_size_of_a_checkpoint(tmp_path):
    out = tmp_path / "run"
    result = run("train", "digits", "--out", out, "--ngf", 16, "--steps", 1)
    said = float(re.search(r"a checkpoint takes ([\d.]+)MB", result.output)[1])
    assert said == pytest.approx((out / "checkpoint.safetensors").stat().st_size / 1e6, rel=0.05)  # names and numbers


def test_train_dry_run_writes_nothing(tmp_path):
    result = run("train", "digits", "--out", tmp_path / "new", "--ngf", 4, "--dry-run")
    assert result.exit_code == 0 and "parameters" in result.output and not (tmp_path / "new").exists()


def test_sample_writes_what_the_function_returns(checkpoint, tmp_path):
    out = tmp_path / "out"
    options = ("-n", 5, "--seed", 7, "--first", 2, "--steps-each", 2, "--eps", 1e-3, "--device", "cpu")
    result = run("sample", "--model", checkpoint, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {
        "samples.npz",
        "grid.png",
        "trajectory.png",
        "settings.json",
        "status.json",
    }
    expected = langevin_ext.sample(
        langevin_ext.load(checkpoint), n=5, seed=7, first=2, n_steps_each=2, eps=1e-3, progress=False
    )
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], expected.numpy()) and file["first"] == 2
    settings = json.loads((out / "settings.json").read_text())
    assert settings["seed"] == 7 and settings["eps"] == 1e-3 and settings["evaluations"] == {"8x8": 3 * 2 + 1}
    assert settings["model"]["sha256"] == langevin_ext.training.describe(checkpoint)["sha256"]


def test_sample_refuses_a_folder_with_other_files(checkpoint, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    result = run("sample", "--model", checkpoint, "--out", tmp_path, "-n", 1, "--steps-each", 1, "--eps", 1e-3)
    assert "must be a new or empty folder" in sentence_of(result)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_precision(checkpoint, tmp_path):
    command = ("sample", "--model", checkpoint, "-n", 1, "--steps-each", 1, "--eps", 1e-3)
    run(*command, "--out", tmp_path / "out", "--precision", "fp32")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["precision"] == "fp32"
    result = run(*command, "--out", tmp_path / "other", "--precision", "fp8")
    assert result.exit_code != 0 and "int16" in result.output


def test_a_run_that_was_killed_is_continued_and_a_finished_one_is_not_touched(checkpoint, tmp_path):
    out = tmp_path / "out"
    command = ("sample", "--model", checkpoint, "--out", out, "-n", 2, "--steps-each", 2, "--eps", 1e-3)
    out.mkdir()
    model = langevin_ext.load(checkpoint)
    with pytest.raises(KeyboardInterrupt):  # the same run, stopped at its fourth update

        def stop(state):
            if state["step"] == 3:
                raise KeyboardInterrupt

        langevin_ext.sample(
            model,
            n=2,
            n_steps_each=2,
            eps=1e-3,
            snapshot="levels",
            checkpoint=out / "run.safetensors",
            return_info=True,
            callback=stop,
            progress=False,
        )
    (out / ".run.safetensors.123.tmp").write_bytes(b"half a file")
    (out / "samples.npz").write_bytes(b"killed while the results were written")
    assert run(*command).exit_code == 0
    expected = langevin_ext.sample(model, n=2, n_steps_each=2, eps=1e-3, progress=False)
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], expected.numpy())
    assert {p.name for p in out.iterdir()} == {
        "samples.npz",
        "grid.png",
        "trajectory.png",
        "settings.json",
        "status.json",
    }
    assert "must be a new or empty folder" in sentence_of(run(*command))
    assert "must be a new or empty folder" in sentence_of(run("demo", "--out", out))


def test_sample_dry_run_prints_the_plan_and_writes_nothing(checkpoint, tmp_path):
    result = run("sample", "--model", checkpoint, "--out", tmp_path / "out", "--eps", 1e-3, "--dry-run")
    assert result.exit_code == 0 and "301" in result.output and not (tmp_path / "out").exists()


def test_inpaint_keeps_the_known_pixels(checkpoint, tmp_path):
    out = tmp_path / "out"
    result = run(
        "inpaint",
        "--model",
        checkpoint,
        "--images",
        "digits",
        "-n",
        4,
        "--variants",
        2,
        "--known",
        "top",
        "--steps-each",
        1,
        "--eps",
        1e-3,
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    originals = langevin_ext.data.open_dataset("digits", split="test").images[:2].float() / 255
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        x = torch.from_numpy(file["images"])
    assert torch.equal(x[:, :, :4], originals.repeat_interleave(2, 0)[:, :, :4])
    assert not torch.equal(x[0, :, 4:], x[1, :, 4:])


@pytest.mark.parametrize(
    "region, corner, opposite", [("left", (0, 0), (0, 5)), ("bottom", (5, 0), (0, 0)), ("centre", (3, 3), (0, 0))]
)
def test_known_regions(region, corner, opposite):
    mask = known_mask(region, 6, 6)
    assert mask[0][corner] and not mask[0][opposite]


def test_known_region_drawn_in_a_file(tmp_path):
    Image.fromarray(np.array([[255, 0], [0, 0]], dtype=np.uint8)).save(tmp_path / "mask.png")
    mask = known_mask(str(tmp_path / "mask.png"), 4, 4)[0]
    assert mask[:2, :2].all() and mask.sum() == 4


def test_official_checkpoints_are_sampled(tmp_path):
    torch.manual_seed(0)
    model = NCSN((1, 8, 8), 4)
    torch.save([{f"module.{k}": v for k, v in model.state_dict().items()}, {}], tmp_path / "official.pth")
    result = run(
        "sample",
        "--model",
        tmp_path / "official.pth",
        "--shape",
        "1x8x8",
        "-n",
        1,
        "--steps-each",
        1,
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("sample", "--model", "no-such", "--out", "x"), "no-such"),
        (
            ("sample", "--model", "x.safetensors", "--shape", "1x8x8", "--out", "x"),
            "--shape is for official checkpoints",
        ),
        (("train", "no-such-folder", "--out", "x"), "no-such-folder"),
        (("train", "digits", "--size", "8y8", "--out", "x"), "--size must be like"),
        (("sample", "--model", "x.pth", "--shape", "8", "--out", "x"), "--shape must be like"),
        (("sample", "--model", "MODEL", "--device", "gpu", "--out", "x"), "--device must be cpu, cuda or cuda:N"),
        (("train", "digits", "--device", "cuda:99", "--out", "x"), "--device must be a GPU that torch sees"),
        (
            ("inpaint", "--model", "MODEL", "--images", "digits", "--known", "nowhere", "--out", "x"),
            "--known must be one",
        ),
        (("inpaint", "--model", "MODEL", "--images", "digits", "-n", "3", "--out", "x"), "-n must be a multiple"),
    ],
)
def test_errors_are_one_sentence(arguments, words, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in sentence_of(run(*[checkpoint if a == "MODEL" else a for a in arguments]))
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Files of two small networks, 8x8 and 16x16."""
    folder = tmp_path_factory.mktemp("pair")
    for size in (8, 16):
        torch.manual_seed(size)
        langevin_ext.save(
            folder / f"{size}.safetensors", langevin_ext.NCSN((1, size, size), 4, torch.tensor([0.5, 0.1]))
        )
    return folder / "8.safetensors", folder / "16.safetensors"


def test_sample_over_two_resolutions(pair, tmp_path):
    low, high = pair
    options = ["--scheme", "LRS-1-up-HRS-2", "-n", 3, "--steps-each", "2,3", "--eps", "1e-3,2e-3", "--renoise"]
    options += ["--upsample", "bicubic-pil"]
    result = run("sample", "--model", low, "--model", high, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["evaluations"] == {"8x8": 2, "16x16": 7} and settings["upsample"] == "bicubic-pil"
    models = [langevin_ext.load(path) for path in pair]
    x = langevin_ext.sample(
        models, "LRS-1-up-HRS-2", 3, n_steps_each=[2, 3], eps=[1e-3, 2e-3], renoise=True, upsample="bicubic-pil"
    )
    assert np.array_equal(np.load(tmp_path / "out" / "samples.npz")["images"], x.numpy())
    assert (tmp_path / "out" / "trajectory.png").exists()
    result = run("sample", "--model", low, "--model", high, "--out", "x", "--scheme", "LRS-up", "--dry-run")
    assert "stage 1: upsample to 16x16" in result.output and "201 evaluations at 8x8" in result.output


def test_inpaint_over_two_resolutions(pair, tmp_path):
    options = ["--images", "glyphs", "-n", 4, "--variants", 2, "--steps-each", 2, "--eps", 1e-3]
    low, high = pair
    result = run(
        "inpaint", "--model", low, "--model", high, "--scheme", "LRS-1-up-HRS-1", "--out", tmp_path / "out", *options
    )
    assert result.exit_code == 0, result.output
    assert np.load(tmp_path / "out" / "samples.npz")["images"].shape == (4, 1, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eps", "1e-3,x"], "--eps must be a number, or one for each model with commas, got '1e-3,x'"),
        (["--steps-each", "2.5"], "--steps-each must be a number"),
        (["--upsample", "lanczos"], "--upsample must be one of bicubic, bicubic-pil, bilinear, nearest or a file"),
        (["--scheme", "LRS-1-up", "--upsample", "glyphs16"], "--upsample must be an upsampling network, got glyphs16"),
        (["--scheme", "LRS-3-up"], "i from 1 to 2"),
    ],
)
def test_messages_of_multi_resolution_options(pair, options, message):
    result = run("sample", "--model", pair[0], "--model", pair[1], "--out", "x", *options)
    assert result.exit_code == 1 and message in result.output
