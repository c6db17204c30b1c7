"""Choosing a checkpoint: the distances are those of `sample`, the best is kept, and an interruption changes nothing."""

import json
import math
import os
import signal

import pytest
import torch
from click.testing import CliRunner
from linear_score import IMAGES, LinearScore, build, digits, small
from PIL import Image
from safetensors.torch import load_file

import langevin_ext
from langevin_ext.cli import main
from langevin_ext.metrics import PixelFeatures, frechet_samples
from langevin_ext.metrics.frechet import measured
from langevin_ext.training import Selection, read_selection, select_checkpoint, selection_curve
from langevin_ext.training.selection_log import best_line

# 20 samples of 16 pixels, 3 levels of 4 steps; eps is stable for a of at most 2
SELECT = {"n": 20, "n_steps_each": 4, "eps": 1e-3, "seed": 3}
REFERENCE = IMAGES.float() / 255


def chosen(out, steps, **options):
    return small(out, steps, **{"ema": 0.9, "select_every": 6, "select": SELECT, **options})


def table(out):
    return [{**line, "seconds": 0} for line in read_selection(out)]


def same_selection(a, b):
    assert table(a) == table(b)
    first, second = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 24 steps, measured after 6, 12, 18 and 24."""
    out = tmp_path_factory.mktemp("whole") / "run"
    chosen(out, 24)
    return out


def test_lines_are_the_distances_of_sample(whole, tmp_path):
    lines = read_selection(whole)
    assert [line["step"] for line in lines] == [6, 12, 18, 24]
    for line in lines[:2]:  # the averaged network of that step, from a run that ended there
        model = small(tmp_path / str(line["step"]), line["step"], ema=0.9)
        x = langevin_ext.sample(model, progress=False, **SELECT)
        expected = frechet_samples(x, IMAGES, PixelFeatures(clip=True))
        assert line["distance"] == float(expected)
        assert (line["counts"], line["features"]) == ([20, 40], "clipped pixels")
        assert line["seconds"] > 0 and line["settings"]["eps"] == 1e-3


def test_keeps_the_best(whole, tmp_path):
    lines = read_selection(whole)
    best = min(lines, key=lambda line: line["distance"])
    facts = langevin_ext.training.describe(whole / "best.safetensors")
    assert facts["metadata"]["steps"] == best["step"] and facts["weights"] == ["ema"]
    assert facts["metadata"]["selection"]["distance"] == best["distance"]
    small(tmp_path / "run", best["step"], ema=0.9)
    there = load_file(whole / "best.safetensors")
    assert all(torch.equal(v, there[k]) for k, v in load_file(tmp_path / "run" / "model.safetensors").items())


def test_best_is_the_first_of_the_lowest():
    lines = [{"step": i, "distance": d} for i, d in enumerate([3.0, None, 1.0, 2.0, 1.0])]
    assert best_line(lines)["step"] == 2 and best_line(lines[:2])["step"] == 0 and best_line(lines[1:2]) is None


def test_a_worse_network_does_not_replace_the_best(tmp_path):
    """A network that training makes worse: its learning rate throws it far from where it started."""
    model = LinearScore()
    with torch.no_grad():
        model.a.copy_(torch.tensor([1.0, 1.0, 1.0]))
    small(tmp_path / "run", 12, model, lr=0.5, ema=None, select_every=3, select=SELECT)
    lines = read_selection(tmp_path / "run")
    best = best_line(lines)
    assert best["step"] < 12, lines
    facts = langevin_ext.training.describe(tmp_path / "run" / "best.safetensors")
    assert facts["metadata"]["steps"] == best["step"] and facts["weights"] == ["model"]


def test_measuring_does_not_change_the_training(whole, tmp_path):
    small(tmp_path / "plain", 24, ema=0.9)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        ours, theirs = load_file(whole / name), load_file(tmp_path / "plain" / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_a_continued_run_has_the_same_table(whole, tmp_path):
    for steps in (5, 12, 13, 24, 24):
        chosen(tmp_path / "parts", steps)
    same_selection(whole, tmp_path / "parts")


@pytest.fixture
def ctrl_c():
    """Python's own handler, also where the tests run in the background and so ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", ["while sampling", "before the table", "after the table"])
def test_an_interrupted_measurement_is_repeated(whole, tmp_path, monkeypatch, ctrl_c, how):
    from langevin_ext.training import selection

    calls = []
    if how == "while sampling":
        original = selection.sampling.sample

        def sample(*arguments, callback, **options):
            def stop(state):
                calls.append(state["step"])
                if len(calls) == 20:  # in the second measurement
                    os.kill(os.getpid(), signal.SIGINT)
                callback(state)

            return original(*arguments, callback=stop, **options)

        monkeypatch.setattr(selection.sampling, "sample", sample)
    else:
        original = selection.write_selection

        def write(folder, lines):
            if how == "after the table":
                original(folder, lines)
            if len(lines) == 2:
                raise KeyboardInterrupt
            if how == "before the table":
                original(folder, lines)

        monkeypatch.setattr(selection, "write_selection", write)
    with pytest.raises(KeyboardInterrupt):
        chosen(tmp_path / "parts", 24)
    if how == "while sampling":
        assert len(calls) == 20, "the first Ctrl-C stops the sampling at once"
    monkeypatch.undo()
    facts = langevin_ext.training.describe(tmp_path / "parts" / "checkpoint.safetensors")
    assert facts["metadata"]["step"] == 12 and len(table(tmp_path / "parts")) == (2 if how == "after the table" else 1)
    chosen(tmp_path / "parts", 24)
    same_selection(whole, tmp_path / "parts")


def test_a_crash_after_a_measurement(whole, tmp_path):
    """The table is never ahead of the checkpoint, though `save_every` alone would have written the last one at 7."""

    def crash(info):
        if info["step"] == 13:
            raise RuntimeError("the machine stops")

    with pytest.raises(RuntimeError):
        chosen(tmp_path / "parts", 24, callback=crash)
    facts = langevin_ext.training.describe(tmp_path / "parts" / "checkpoint.safetensors")
    assert facts["metadata"]["step"] == 12 and len(table(tmp_path / "parts")) == 2
    chosen(tmp_path / "parts", 24)
    same_selection(whole, tmp_path / "parts")


def test_samples_that_are_not_finite_are_no_candidates(tmp_path):
    class Explodes(LinearScore):
        def forward(self, x, level):
            if not self.training and self.samples_seen > 100:  # in the second measurement
                return x * math.nan
            return super().forward(x, level)

    small(tmp_path / "run", 12, Explodes(), select_every=6, select=SELECT)
    first, second = read_selection(tmp_path / "run")
    assert first["distance"] > 0 and second["distance"] is None and "not finite" in second["failure"]
    assert langevin_ext.training.describe(tmp_path / "run" / "best.safetensors")["metadata"]["steps"] == 6


def test_reference_and_features(tmp_path):
    class Means:
        name = "means"

        def __call__(self, images):
            x = images.double() / 255 if images.dtype == torch.uint8 else images.double()
            return x.clamp(0, 1).mean((2, 3)) * torch.tensor([1.0, -2.0])

    values = {}
    references = {
        "data": digits(),
        "eight bits": IMAGES,
        "float": REFERENCE,
        "statistics": measured(REFERENCE, Means()),
    }
    for name, reference in references.items():
        chosen(tmp_path / name, 6, select=Selection(**SELECT, reference=reference, features=Means()))
        (line,) = read_selection(tmp_path / name)
        values[name] = line["distance"]
        assert line["features"] == "means" and line["counts"] == [20, 40]
    # v/255 in float32 and in float64 differ by 3e-8 of the value
    assert list(values.values()) == pytest.approx([values["data"]] * 4, rel=1e-6)


def test_curve(whole, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    scales, scale = [], Axes.set_yscale
    monkeypatch.setattr(Axes, "set_yscale", lambda axes, name: scales.append(name) or scale(axes, name))
    with Image.open(whole / "selection.png") as picture:
        assert picture.size == (720, 480)
    lines = read_selection(whole / "selection.jsonl")
    assert selection_curve(whole, tmp_path / "a.png") == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes() == (whole / "selection.png").read_bytes()
    selection_curve([{**line, "distance": 30.0**i} for i, line in enumerate(lines)], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes() and scales == ["linear", "log"]
    with pytest.raises(ValueError, match="selection_curve: lines must hold a distance, got 1 without"):
        selection_curve([{**lines[0], "distance": None}], tmp_path / "c.png")


def test_says_what_it_found(tmp_path, capsys):
    chosen(tmp_path / "run", 6, progress=True)
    (line,) = read_selection(tmp_path / "run")
    expected = (
        f"train: step 6: Frechet distance {line['distance']:.6g} (clipped pixels, 20 against 40), the best so far"
    )
    assert expected in capsys.readouterr().out


CHANGES = [
    ({"select": {**SELECT, "eps": 2e-3}}, "train: eps of select must be that of .*selection.jsonl, 0.001, got 0.002"),
    ({"select": {**SELECT, "n": 21}}, "train: n of select must be that of .*, 20, got 21"),
    (
        {"select": {**SELECT, "reference": REFERENCE}},
        "train: reference of select must be that of .*, '[0-9a-f]+', got '",
    ),
    (
        {"select": {**SELECT, "features": PixelFeatures()}},
        "features of select must be .*, 'clipped pixels', got 'pixels'",
    ),
]


@pytest.mark.parametrize("changed, message", CHANGES)
def test_other_settings_are_refused(whole, changed, message):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    with pytest.raises(ValueError, match=message):
        chosen(whole, 30, **changed)
    assert before == {path.name: path.read_bytes() for path in whole.iterdir()}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"select_every": None}, "train: select needs select_every, the steps between measurements, got None"),
        ({"select_every": 0}, r"train: select_every must be an integer in \[1, 2\^32\), got 0"),
        ({"select": {"n": 1}}, r"Selection: n must be an integer in \[2, 2\^32\), got 1"),
        ({"select": {"samples": 1}}, "train: select must be a Selection or a dictionary of its arguments: .*samples"),
        ({"select": 1000}, "train: select must be a Selection or a dictionary of its arguments: "),
        ({"select": {"features": "pixels"}}, "Selection: features must be callable, got str"),
        ({"select": {**SELECT, "eps": -1.0}}, "eps"),
        ({"select": {**SELECT, "reference": "glyphs"}}, r"train: reference must be a dataset, .*, got 'glyphs'"),
        ({"select": {**SELECT, "reference": torch.zeros(1, 1, 4, 4)}}, "gaussian_statistics: features must be"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        chosen(tmp_path / "run", 6, **options)
    assert not (tmp_path / "run").exists()


def test_tables_that_do_not_fit(whole, tmp_path):
    chosen(tmp_path / "run", 6)
    (tmp_path / "run" / "selection.jsonl").write_text((whole / "selection.jsonl").read_text())
    with pytest.raises(
        ValueError, match=r"train: .*selection.jsonl must not be ahead of its run, .* step 6, got step 24"
    ):
        chosen(tmp_path / "run", 12)
    (tmp_path / "run" / "selection.jsonl").write_text('{"step": 6, "distance": 1.0}\n')
    with pytest.raises(
        ValueError, match="read_selection: .*selection.jsonl line 1 must have step, distance and settings"
    ):
        chosen(tmp_path / "run", 12)
    with pytest.raises(FileNotFoundError, match="read_selection: file must exist, got"):
        read_selection(tmp_path / "none.jsonl")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Checkpoints after 2, 6 and 12 steps of the run of `whole`."""
    folder = tmp_path_factory.mktemp("networks")
    for steps in (2, 6, 12):
        small(folder / str(steps), steps, ema=0.9)
    return [folder / str(steps) / "model.safetensors" for steps in (2, 6, 12)]


def test_afterwards_gives_the_same_table(whole, networks, tmp_path, monkeypatch):
    options = {"build": build, "progress": False}
    best, lines = select_checkpoint(networks, digits(), SELECT, out=tmp_path / "out", **options)
    assert [line["step"] for line in lines] == [2, 6, 12]
    during = table(whole)
    for line, earlier in zip(lines[1:], during, strict=False):
        assert {key: line[key] for key in earlier if key != "seconds"} == {
            key: value for key, value in earlier.items() if key != "seconds"
        }
    assert best == networks[min(range(3), key=lambda i: lines[i]["distance"])]
    assert read_selection(tmp_path / "out") == lines and (tmp_path / "out" / "selection.png").exists()
    monkeypatch.setattr(langevin_ext.training.selection.Judge, "__call__", None)  # nothing is measured again
    assert select_checkpoint(networks[::-1], digits(), SELECT, out=tmp_path / "out", **options)[1] == lines[::-1]
    assert len(read_selection(tmp_path / "out")) == 3


def test_afterwards_refuses(networks, tmp_path):
    with pytest.raises(ValueError, match="select_checkpoint: paths must hold at least one checkpoint, got none"):
        select_checkpoint([], digits(), SELECT)
    select_checkpoint(networks[:1], digits(), SELECT, out=tmp_path, build=build, progress=False)
    with pytest.raises(ValueError, match="select_checkpoint: seed of select must be that of .*, 3, got 4"):
        select_checkpoint(networks[:1], digits(), {**SELECT, "seed": 4}, out=tmp_path, build=build, progress=False)

    def broken(config):
        model = build(config)
        model.forward = lambda x, level: x * math.nan
        return model

    with pytest.raises(ValueError, match="paths must hold a network with finite samples, got .*not finite"):
        select_checkpoint(networks[:1], digits(), SELECT, build=broken, progress=False)


@pytest.mark.filterwarnings("ignore:frechet_samples. 3 samples are fewer")  # enough for the options
def test_command(tmp_path):
    arguments = [
        *("train", "digits", "--out", str(tmp_path / "run"), "--ngf", "4", "--steps", "2", "--batch-size", "8"),
        *("--sigmas", "1", "0.3", "2", "--device", "cpu", "--select-every", "1", "--select-samples", "3"),
        *("--select-steps-each", "1", "--select-eps", "1e-3", "--select-reference", "digits", "test"),
        *("--select-features", "digits"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = read_selection(tmp_path / "run")
    assert [line["step"] for line in lines] == [1, 2] and lines[0]["features"] == "digits classifier"
    assert lines[0]["counts"] == [3, 297] and "best.safetensors, selection.jsonl, selection.png" in result.output
    assert langevin_ext.load(tmp_path / "run" / "best.safetensors").shape == (1, 8, 8)
    json.loads((tmp_path / "run" / "selection.jsonl").read_text().splitlines()[0])
