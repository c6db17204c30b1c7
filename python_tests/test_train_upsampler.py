"""Training the upsampler: its loss and its measure by their definitions, exact continuation, and the command."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from linear_score import QUIET
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

import langevin_ext
from langevin_ext import data, noise
from langevin_ext.commands.train_upsampler import train_upsampler_command
from langevin_ext.engine.channels_last import float32_convolutions
from langevin_ext.models import FSRCNN
from langevin_ext.training import describe, read_log
from langevin_ext.training.upsampler import UpsamplerSettings, UpsamplerTrainer, psnr, train_upsampler


def pictures(n=24, channels=1, height=8, width=12, seed=1):
    return data.ImageDataset((noise.uniform((n, channels, height, width), seed) * 255).to(torch.uint8))


def network(seed=0):
    torch.manual_seed(seed)
    return FSRCNN(4, 3, 1)


def small(out, steps, images=None, **options):
    options = {
        "batch_size": 8,
        "save_every": 7,
        "log_every": 5,
        "flip": True,
        "held_out": pictures(9, seed=2),
    } | options
    if "model" not in options:
        options["model"] = network()
    images = pictures() if images is None else images
    return train_upsampler(images, out=out, steps=steps, **QUIET, **options)


def means_of_four(x):
    return (x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4


def y_of(x):
    """Y of BT.601 by its published coefficients, of 255."""
    if x.shape[1] == 1:
        return x
    return (16 + 65.481 * x[:, :1] + 128.553 * x[:, 1:2] + 24.966 * x[:, 2:]) / 255


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(result, folder, data) of 200 steps on 200 glyphs of 16 pixels."""
    images, out = data.open_dataset("glyphs", 16, limit=200), tmp_path_factory.mktemp("upsampler") / "run"
    torch.manual_seed(0)
    model = train_upsampler(
        images, out=out, steps=200, model=FSRCNN(24, 8, 1), batch_size=16, lr=5e-3, ema=0.99, **QUIET
    )
    return model, out, images


def test_it_learns_to_beat_bicubic_interpolation(trained):
    model, out, images = trained
    record, facts = read_log(out), describe(out / "model.safetensors")["metadata"]
    assert record["loss"][-1] < 0.7 * record["loss"][0]
    # 1.9 dB above with this seed; half of it allows for other rounding
    assert facts["psnr"] > facts["psnr_bicubic"] + 1 and facts["held_out_images"] == 200
    test = images.split("test")
    assert facts["psnr"] == pytest.approx(psnr(model.enlarge, test), abs=1e-9)
    low = means_of_four(test.batch(range(200), seed=0, step=0, dequantise=False))
    error = (interpolate(low, scale_factor=2, mode="bicubic").clamp(0, 1) - test.images / 255).double().square().mean()
    # the mean over the images in float64 of float32 means
    assert facts["psnr_bicubic"] == pytest.approx(-10 * error.log10().item(), abs=1e-4)


def test_result_is_an_upsampler(trained):
    model, out, images = trained
    again = langevin_ext.load(out / "model.safetensors")
    x = noise.uniform((2, 3, 8, 6), 5)
    with torch.no_grad():
        assert again(x).shape == (2, 3, 16, 12) and torch.equal(again(x), model(x)) and not model.training
    facts = describe(out / "model.safetensors")
    assert facts["config"]["class"] == "FSRCNN" and facts["weights"] == ["ema"]
    origin = facts["metadata"]
    assert origin["steps"] == 200 and origin["data"] == images.fingerprint and origin["settings"]["low"] == "average"
    assert origin["settings"]["held_out"] == images.split("test").fingerprint
    assert not {"anneal_power", "dequantise"} & origin["settings"].keys()


def test_log_has_the_measure_on_every_line(tmp_path):
    held_out = pictures(300, seed=2)
    small(tmp_path / "run", 7, held_out=held_out)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert [row["step"] for row in rows] == [5, 7] and rows[0]["psnr"] != rows[1]["psnr"]
    assert rows[1]["levels"] == [rows[1]["loss"]]
    model = langevin_ext.load(tmp_path / "run" / "model.safetensors")
    assert rows[1]["psnr"] == psnr(model.enlarge, held_out, count=256)  # of the averaged weights, the first 256
    assert describe(tmp_path / "run" / "model.safetensors")["metadata"]["psnr"] == psnr(model.enlarge, held_out)


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_by_hand(channels):
    images, model = pictures(channels=channels), network()
    settings = UpsamplerSettings(batch_size=5, seed=3, flip=True, dequantise=False)
    trainer = UpsamplerTrainer(model, images, images, settings)
    trainer.step = 2
    x, level, indices = trainer.batch()
    assert torch.equal(indices, data.indices_for(2, 5, 24, 3)) and level.tolist() == [0] * 5
    mirrored = (noise.uniform((5,), 3, step=2, stream=noise.FLIP) < 0.5)[:, None, None, None]
    assert mirrored.any() and not mirrored.all()
    y = images.images[indices] / 255
    y = y_of(torch.where(mirrored, y.flip(-1), y))
    loss = ((model.enlarge(means_of_four(y)) - y) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(trainer.loss(x, level), loss)


def test_first_step_by_hand(tmp_path):
    # the images as they are, without the noise that score networks are trained with
    losses, images, model = [], pictures(), network()
    y = images.images[data.indices_for(0, 8, 24, 0)] / 255
    expected = (model.enlarge(means_of_four(y)) - y).square().mean().item()
    small(tmp_path / "run", 1, images, model=model, flip=False, callback=lambda info: losses.append(info["loss"]))
    assert losses == pytest.approx([expected], rel=1e-5)


def test_low_by_bicubic_reduction():
    images, model = pictures(height=16, width=16), network()
    trainer = UpsamplerTrainer(model, images, images, UpsamplerSettings(batch_size=5, dequantise=False, low="bicubic"))
    x, level, indices = trainer.batch()
    # Pillow's bicubic reduction, which has the same kernel, of float images
    halves = [np.array(Image.fromarray(i[0].numpy()).resize((8, 8), Image.Resampling.BICUBIC)) for i in x]
    low = torch.from_numpy(np.stack(halves))[:, None]
    torch.testing.assert_close(trainer.loss(x, level), ((model.enlarge(low) - x) ** 2).flatten(1).mean(1))


def test_psnr_by_hand():
    images = pictures(70)  # two chunks
    x = images.images.double() / 255
    for enlarge in (lambda low: torch.full((len(low), 1, 8, 12), 0.25), lambda low: interpolate(low, scale_factor=2)):
        y = enlarge(means_of_four(x))
        expected = -10 * (y - x).square().mean().log10().item()
        assert psnr(enlarge, images) == pytest.approx(expected, abs=1e-5)  # float32 against float64
        assert psnr(enlarge, images, count=3) == pytest.approx(
            -10 * (y - x)[:3].square().mean().log10().item(), abs=1e-5
        )
    assert psnr(lambda low: torch.full((len(low), 1, 8, 12), 7.0), images) == pytest.approx(
        -10 * (1 - x).square().mean().log10().item(), abs=1e-5
    )  # values are clipped to [0, 1]
    black = data.ImageDataset(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    assert psnr(lambda low: interpolate(low, scale_factor=2), black) == pytest.approx(120)


def same_run(a, b):
    """All tensors of both files and all lines of the log but the seconds are equal."""
    for name in ("checkpoint.safetensors", "model.safetensors"):
        first, second = load_file(a / name), load_file(b / name)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    logs = [[{**json.loads(line), "seconds": 0} for line in (out / "log.jsonl").open()] for out in (a, b)]
    assert logs[0] == logs[1]
    first, second = (describe(out / "model.safetensors")["metadata"] for out in (a, b))
    assert first == second


@pytest.mark.parametrize("options", [{}, {"ema": None, "low": "bicubic"}])
def test_resume_is_exact(tmp_path, options):
    whole = small(tmp_path / "whole", 18, **options)
    small(tmp_path / "parts", 9, **options)
    parts = small(tmp_path / "parts", 18, **options, model=network(9))  # its weights come from the checkpoint
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert all(torch.equal(value, parts.state_dict()[name]) for name, value in whole.state_dict().items())
    small(tmp_path / "parts", 18, **options)  # nothing left to do
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_an_interrupted_run_goes_on(tmp_path):
    small(tmp_path / "whole", 18)

    def interrupt(info):
        if info["step"] == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "parts", 18, callback=interrupt)
    small(tmp_path / "parts", 18)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"low": "bicubic"}, "train: low must be that of .*, 'average', got 'bicubic'"),
        ({"held_out": pictures(9, seed=5)}, "train: held_out must be that of "),
        ({"images": pictures(seed=6)}, "train: data must be that of "),
        ({"model": FSRCNN(5, 3, 1)}, "train: model.d must be that of .*, 4, got 5"),
    ],
)
def test_another_run_is_not_continued(tmp_path, options, message):
    small(tmp_path / "run", 1)
    with pytest.raises(ValueError, match=message):
        small(tmp_path / "run", 2, **options)


def test_initial_weights_depend_on_the_seed_alone(tmp_path):
    start = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(name + str(seed)) + ord(name))  # another state of the global generator each time
        before = torch.get_rng_state()
        model = small(tmp_path / name, 1, model=None, seed=seed, lr=1e-30)
        assert torch.equal(torch.get_rng_state(), before) and (model.d, model.s, model.m) == (56, 12, 4)
        start[name] = model.state_dict()
    same = [all(torch.equal(v, start[other][k]) for k, v in start["a"].items()) for other in ("b", "c")]
    assert same == [True, False]


def test_tensors_as_data(tmp_path):
    x = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    start = network()
    model = small(tmp_path / "run", 3, x, model=copy.deepcopy(start), held_out=x[:4], flip=False)
    assert not torch.equal(model.last_part.weight, start.last_part.weight)
    assert describe(tmp_path / "run" / "model.safetensors")["metadata"]["held_out_images"] == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"low": "nearest"}, "train_upsampler: low must be one of average, bicubic, got 'nearest'"),
        ({"model": torch.nn.Linear(1, 1)}, "train_upsampler: model must be an FSRCNN, got Linear"),
        (
            {"images": pictures(channels=2)},
            r"train_upsampler: data must have 1 or 3 channels and even height and width, got \(2, 8, 12\)",
        ),
        ({"images": pictures(height=9)}, r"even height and width, got \(1, 9, 12\)"),
        ({"images": pictures(width=9)}, r"even height and width, got \(1, 8, 9\)"),
        (
            {"held_out": pictures(channels=3)},
            r"train_upsampler: held_out must have the data's shape \(1, 8, 12\), got \(3, 8, 12\)",
        ),
        ({"held_out": None}, r"held_out must be given where data is not a train part, got ImageDataset\(images, all"),
        ({"images": torch.zeros(4, 1, 4, 4), "held_out": None}, "is not a train part, got Tensor"),
        ({"batch_size": 0}, r"batch_size must be an integer in \[1, 2\^32\), got 0"),
        ({"lr": -1.0}, "lr must be positive and finite, got -1.0"),
        ({"steps": 0}, r"steps must be an integer in \[1, 2\^32\), got 0"),
        ({"seed": -1, "model": None}, r"seed must be an integer in \[0, 2\^64\), got -1"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        small(tmp_path / "run", **{"steps": 2, **options})
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    model = network()
    with torch.no_grad():
        model.last_part.weight.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="train: loss is not finite at step 0, .* sample .* of the data"):
        small(tmp_path / "run", 2, model=model)


def command(*arguments):
    return CliRunner().invoke(train_upsampler_command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two kinds of stripes, in colour."""
    path = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        wave = np.indices((12, 12))[i % 2] * (i % 3 + 1) + i
        pixels = np.stack([wave * 20 % 256, wave * 9 % 256, wave * 5 % 256], -1).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{i:02}.png")
    return path


def test_command(tmp_path, folder):
    out = tmp_path / "run"
    options = ("--size", "8x12", "--batch-size", 4, "--lr", 2e-3, "--seed", 5, "--flip", "--low", "bicubic")
    result = command(folder, "--out", out, "--steps", 2, *options, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "FSRCNN with 12,809 parameters on ImageDataset(folder:" in result.output
    assert {path.name for path in out.iterdir()} >= {"model.safetensors", "checkpoint.safetensors", "comparison.png"}
    facts = describe(out / "model.safetensors")["metadata"]
    assert f"{facts['psnr']:.2f} dB on 2 held-out images, bicubic {facts['psnr_bicubic']:.2f} dB" in result.output
    settings = facts["settings"]
    expected = {"batch_size": 4, "lr": 2e-3, "seed": 5, "flip": True, "low": "bicubic"}
    assert {name: settings[name] for name in expected} == expected
    with Image.open(out / "comparison.png") as sheet:
        assert sheet.mode == "RGB" and sheet.width > 4 * 8
    whole = train_upsampler(
        data.open_dataset(folder, (8, 12)),
        **{
            "out": tmp_path / "whole",
            "steps": 3,
            "batch_size": 4,
            "lr": 2e-3,
            "seed": 5,
            "flip": True,
            "low": "bicubic",
        },
        **QUIET,
    )
    again = command(folder, "--out", out, "--steps", 3, *options, "--device", "cpu")  # goes on with the run
    assert again.exit_code == 0, again.output
    state = load_file(out / "model.safetensors")
    assert all(torch.equal(value, state[f"ema.{name}"]) for name, value in whole.state_dict().items())


def test_command_dry_run_writes_nothing(tmp_path):
    result = command("glyphs:20", "--out", tmp_path / "new", "--size", 8, "--dry-run", "--device", "cpu")
    assert result.exit_code == 0 and not (tmp_path / "new").exists()
    assert result.output.strip().endswith("20 images of 1 x 8 x 8), 20000 steps of 64 on cpu")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--size", "x"), "--size must be like 32 or 32x48, got 'x'"),
        (("--size", 9), r"must have 1 or 3 channels and even height and width, got \(3, 9, 9\)"),
        (("--device", "tpu"), "--device must be cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_command_refuses(tmp_path, folder, arguments, message):
    result = command(folder, "--out", tmp_path / "run", *arguments)
    assert isinstance(result.exception, ValueError)
    with pytest.raises(ValueError, match=message):
        raise result.exception


def test_the_model_goes_to_the_device(tmp_path, monkeypatch):
    devices = []
    monkeypatch.setattr(FSRCNN, "to", lambda self, device: devices.append(device) or self)
    small(tmp_path / "run", 1, device="the device")
    command("glyphs:20", "--out", tmp_path / "command", "--size", 8, "--steps", 1, "--device", "cpu")
    assert devices == ["the device", torch.device("cpu")]


@pytest.mark.cuda
def test_on_cuda(tmp_path):
    with float32_convolutions("ieee"):  # TF32 would turn signs of small gradients, and with them Adam's steps
        model = small(tmp_path / "run", 3, device="cuda")
    assert model.last_part.weight.is_cuda
    same = small(tmp_path / "cpu", 3)
    torch.testing.assert_close(model.cpu().last_part.weight, same.last_part.weight, rtol=0, atol=1e-4)
