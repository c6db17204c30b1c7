"""What `tune` prints, draws and writes: the text, the picture, the command."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_tune import searched

from langevin_ext.commands.tune import command_line, halves
from langevin_ext.commands.tune import tune as command
from langevin_ext.tuning import front_plot
from langevin_ext.tuning.plot import _figure


@pytest.fixture(scope="module")
def found():
    return searched(budget=0.25, n_steps_each=(10, 30), eps=(2e-5, 1.2e-4))


# --- what is printed and drawn ---
def test_the_text_names_the_front_the_paper_and_the_choice(found):
    text = str(found)
    for entry in (*found.front, *found.paper, *found.renoised):
        assert f"{entry.cost:8.4f} {entry.distance:10.6f}  {entry.scheme}" in text
    assert "chosen (*), within 0.25: " + found.best.scheme in text
    assert f"\n* {found.best.cost:8.4f}" in text and text.count("\n* ") == 1


def test_the_picture_has_all_points(found, tmp_path):
    figure = _figure(found)
    axes = figure.axes[0]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(label.startswith(f"chosen: {found.best.scheme}") for label in labels)
    names = {text.get_text() for text in axes.texts}
    assert names == {entry.scheme for entry in found.paper} | {"HRS"}
    clouds = {cloud.get_label(): cloud.get_offsets() for cloud in axes.collections}
    np.testing.assert_allclose(clouds["laws computed"], found.evaluated)
    assert axes.get_yscale() == "log"
    with Image.open(front_plot(found, tmp_path / "front.png")) as picture:
        assert picture.size == (1080, 720)


# --- the command ---
@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    return path


QUICK = ["--steps-each", "5", "--eps", "0.003", "--sigmas", "1", "0.05", "4"]


def test_command_prints_the_choice_and_writes_it(images, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(command, [str(images), *QUICK, "--budget", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    facts = json.loads((out / "tune.json").read_text())
    assert {path.name for path in out.iterdir()} == {"tune.json", "tune.png"}
    assert facts["sample"] in result.output and facts["sample"].startswith("langevin-ext sample --model ")
    assert facts["best"]["scheme"] == facts["arguments"]["scheme"] and facts["shapes"] == [[1, 4, 4], [1, 8, 8]]
    assert facts["front"] and facts["data"].startswith("ImageDataset(")
    again = CliRunner().invoke(command, [str(images), *QUICK, "--out", str(out)])
    assert "--out must be a new or empty folder" in str(again.exception)


def test_command_line_of_a_choice():
    result = searched(schemes=["LRS-9-up-HRS-6"], n_steps_each=(10,), eps=1.2e-4, renoise=True, upsample="nearest",
                      denoise=False, budget=0.5)  # fmt: skip
    assert command_line(result, "low one", "high") == (
        "langevin-ext sample --model 'low one' --model high --scheme LRS-9-up-HRS-6 --steps-each 10 --eps 0.00012 "
        "--upsample nearest --renoise --no-denoise --out samples"
    )


def test_command_line_names_the_models_that_run():
    high = searched(schemes=["HRS-9"], n_steps_each=(10,), eps=1.2e-4, budget=0.5)
    assert command_line(high, "low", "high") == (
        "langevin-ext sample --model high --scheme HRS-9 --steps-each 10 --eps 0.00012 --out samples"
    )
    shapes = [(1, 2, 2), (1, 4, 4), (1, 8, 8)]
    three = searched(shapes=shapes, schemes=["R2[1:2]-up-R1[2:3]-up-R0[4:10]"], n_steps_each=10, budget=0.5)
    assert command_line(three, "low", "high").startswith(
        "langevin-ext sample --model low --model MODEL4x4 --model high --scheme 'R2[1:2]-up-R1[2:3]-up-R0[4:10]' "
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model-low", "digits"], "--model-low and --model-high must be given together, got digits alone"),
        (["--low", "3"], "--low must be 8 halved once or more, got 3 for images of 8x8"),
        (["--low", "8"], "--low must be 8 halved once or more, got 8 for images of 8x8"),
        (
            ["--model-low", "digits", "--model-high", "digits", "--size", "8"],
            "--size and --low must not be given with networks, which have their own",
        ),
    ],
)
def test_command_refuses(images, arguments, message):
    result = CliRunner().invoke(command, [str(images), *arguments])
    assert message in str(result.exception)


def test_halves():
    assert halves((3, 64, 32), 16) == [(3, 16, 8), (3, 32, 16), (3, 64, 32)]
