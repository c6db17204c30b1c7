"""The pictures, pixel by pixel."""

import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from langevin_ext import plots


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_grid_is_pixel_exact(tmp_path):
    images = torch.linspace(0, 1, 5 * 3 * 4).view(5, 1, 3, 4)
    path = plots.image_grid(images, tmp_path / "g.png", columns=2, scale=3)
    sheet = pixels(path)
    gap, height, width = 2, 9, 12
    assert sheet.shape == (3 * (height + gap) + gap, 2 * (width + gap) + gap)
    wanted = (images * 255 + 0.5).to(torch.uint8).numpy()
    for i in range(5):
        top, left = gap + (i // 2) * (height + gap), gap + (i % 2) * (width + gap)
        cell = sheet[top : top + height, left : left + width]
        assert np.array_equal(cell, np.kron(wanted[i, 0], np.ones((3, 3), np.uint8)))
    assert (sheet[:gap] == 255).all() and (sheet[-height:, -width - gap :] == 255).all()  # the sixth cell stays white


def test_grid_colour_clipping_and_defaults(tmp_path):
    images = torch.zeros(10, 3, 8, 8)
    images[0, 0], images[1, 1], images[2, 2] = 2.0, 1.0, -3.0
    sheet = pixels(plots.image_grid(images, tmp_path / "g.png"))
    cell = 64 + 4  # 8 pixels, 8 times as large, and a gap of 4
    assert sheet.shape == (3 * cell + 4, 4 * cell + 4, 3)
    assert sheet[10, 10].tolist() == [255, 0, 0] and sheet[10, 10 + cell].tolist() == [0, 255, 0]
    assert sheet[10, 10 + 2 * cell].tolist() == [0, 0, 0]
    large = pixels(plots.image_grid(torch.zeros(1, 1, 100, 80), tmp_path / "l.png"))
    assert large.shape == (104, 84)
    narrow = pixels(plots.image_grid(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), tmp_path / "n.png", columns=9))
    assert narrow.shape == (cell + 4, 2 * cell + 4)


def test_settings_travel_in_the_picture(tmp_path):
    settings = {"scheme": "annealed", "seed": 7}
    with Image.open(plots.image_grid(torch.zeros(1, 1, 8, 8), tmp_path / "g.png", metadata=settings)) as picture:
        assert json.loads(picture.text["langevin_ext"]) == settings


def test_trajectory(tmp_path):
    # rows are samples, columns levels; a coarser level is enlarged to the others
    snapshots = [torch.full((2, 1, 4, 4), 0.2), torch.full((2, 1, 8, 8), 0.4), torch.full((2, 1, 8, 8), 0.6)]
    snapshots[2][1] = 1.0
    sheet = pixels(plots.trajectory(snapshots, tmp_path / "t.png", scale=2))
    gap, cell = 2, 16 + 2
    assert sheet.shape == (2 * cell + gap, 3 * cell + gap)
    centres = [[int(sheet[gap + r * cell + 8, gap + c * cell + 8]) for c in range(3)] for r in range(2)]
    assert centres == [[51, 102, 153], [51, 102, 255]]
    assert (sheet[gap : gap + 16, gap : gap + 16] == 51).all()
    labelled = pixels(plots.trajectory(snapshots, tmp_path / "l.png", ["σ=1", ".6", ".3"], scale=2))
    top = labelled.shape[0] - sheet.shape[0]
    assert top > 8 and np.array_equal(labelled[top + gap :], sheet[gap:])
    bands = [labelled[:top, gap + c * cell : gap + c * cell + 16] for c in range(3)]
    assert all(band.min() < 100 for band in bands)  # something is written over each column


def log_of(n, levels=3):
    step = torch.arange(1, n + 1) * 100
    table = torch.rand(n, levels, dtype=torch.float64)
    return {"step": step, "loss": table.mean(1), "levels": table, "seconds": step.double()}


def test_loss_curve(tmp_path):
    log = log_of(5)
    log["levels"][2, 1] = math.nan  # a level that was not drawn is no fault
    figure = plots._curves(*(log[name].numpy() for name in ("step", "loss", "levels")))
    whole, single = figure.axes
    assert np.array_equal(whole.lines[0].get_ydata(), log["loss"].numpy())
    assert [len(line.get_xdata()) for line in single.lines] == [5, 4, 5]
    assert np.array_equal(single.lines[2].get_ydata(), log["levels"][:, 2].numpy())
    assert pixels(plots.loss_curve(log, tmp_path / "c.png")).shape == (480, 1080, 4)


def test_loss_curve_reads_a_log(tmp_path):
    lines = [{"step": k, "loss": 1 / k, "levels": [1 / k, None], "seconds": k} for k in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source in (tmp_path, tmp_path / "log.jsonl"):
        assert plots.loss_curve(source, tmp_path / "c.png").exists()


def test_no_global_state(tmp_path):
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plots.loss_curve(log_of(2), tmp_path / "c.png")
    assert before or "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plots.image_grid(torch.zeros(1, 1, 8, 8), path),
        lambda path: plots.trajectory([torch.zeros(1, 1, 8, 8)], path),
        lambda path: plots.loss_curve(log_of(2), path),
    ],
)
def test_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch, draw):
    path = tmp_path / "p.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        draw(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


NAN = torch.zeros(3, 1, 8, 8)
NAN[1, 0, 2, 2] = math.nan


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: plots.image_grid(NAN, p), r"image_grid: images must be finite, got 1 of 3 that are not: \[1\]"),
        (lambda p: plots.image_grid(torch.zeros(1, 2, 8, 8), p), r"must be \(N, C, H, W\) with C 1 or 3, got \(1, 2"),
        (lambda p: plots.image_grid(torch.zeros(0, 1, 8, 8), p), r"images must be \(N, C, H, W\)"),
        (
            lambda p: plots.image_grid(torch.zeros(1, 1, 8, 8).long(), p),
            "images must be float or uint8, got torch.int64",
        ),
        (lambda p: plots.image_grid(torch.zeros(1, 1, 8, 8), p, columns=0), "columns must be at least 1, got 0"),
        (
            lambda p: plots.image_grid(torch.zeros(1, 1, 8, 8), p, scale=1.5),
            "scale must be a positive integer, got 1.5",
        ),
        (lambda p: plots.trajectory([], p), "trajectory: snapshots must hold at least one level, got none"),
        (lambda p: plots.trajectory([NAN[:1], NAN], p), r"trajectory \(snapshot 1\): images must be finite"),
        (
            lambda p: plots.trajectory([NAN[:1], torch.zeros(2, 1, 8, 8)], p),
            r"trajectory: snapshots must have equal N and C, got \[\(1, 1\), \(2, 1\)\]",
        ),
        (lambda p: plots.trajectory([NAN[:1]], p, ["a", "b"]), "labels must be one for each of 1 snapshots, got 2"),
        (lambda p: plots.loss_curve(log_of(0), p), "loss_curve: log must have at least one line, got none"),
        (
            lambda p: plots.loss_curve({**log_of(2), "loss": torch.tensor([1.0, math.inf])}, p),
            r"loss_curve: log must hold finite losses, got others at steps \[200\]",
        ),
    ],
)
def test_wrong_arguments(tmp_path, call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_smooth_enlargement_interpolates(tmp_path):
    images = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    plots.image_grid(images, tmp_path / "a.png", scale=8)
    plots.image_grid(images, tmp_path / "b.png", scale=8, smooth=True)
    hard, soft = (np.array(Image.open(tmp_path / name))[8] for name in ("a.png", "b.png"))
    assert set(hard.tolist()) == {0, 255}
    assert len(set(soft.tolist())) > 4 and (np.diff(soft[4:20].astype(int)) >= 0).all()


def test_scatter(tmp_path):
    path = plots.scatter(torch.randn(50, 2, 1, 1), tmp_path / "points.png")
    with Image.open(path) as picture:
        assert picture.size == (600, 600)
        assert len(np.unique(np.asarray(picture))) > 2
    for points in (torch.zeros(5, 3), torch.full((5, 2), torch.nan)):
        with pytest.raises(ValueError, match=r"scatter: points must be finite and \(N, 2\), got"):
            plots.scatter(points, tmp_path / "other.png")
