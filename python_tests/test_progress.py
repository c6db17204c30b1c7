"""Progress of long runs: lines without a terminal, the status file, and what `langevin-ext status` makes of it."""

import contextlib
import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import langevin_ext
from langevin_ext import _progress
from langevin_ext._progress import Progress, describe, read_status
from langevin_ext.cli import main


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(_progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def level():
    """Sets the logger's level, and puts it back."""
    yield _progress.logger.setLevel
    _progress.logger.setLevel(logging.NOTSET)


def test_a_line_a_minute_without_a_terminal(clock, capsys):
    with Progress(1000, "train", "step", initial=100) as progress:
        for _ in range(300):
            clock.now += 0.5
            progress.update(note="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 220 of 1000 steps (22.0 %), 2 steps/s, 06:30 left, loss 1.5",
        "train: 340 of 1000 steps (34.0 %), 2 steps/s, 05:30 left, loss 1.5",
        "train: 400 of 1000 steps (40.0 %) in 02:30, loss 1.5",
    ]


def test_slow_units_have_the_inverse_rate(clock, capsys):
    with Progress(10, "sample", "image") as progress:
        clock.now += 240
        progress.update(2)
    assert "120 s/image, 16:00 left" in capsys.readouterr().err


def test_steps_of_an_earlier_session_do_not_count_for_the_rate(clock, capsys):
    with Progress(100, "table 1", "step") as progress:
        progress.skip(40)
        progress.rename("LRS")
        clock.now += 60
        progress.update(30)
        progress.extend(60)
        clock.now += 60
        progress.update(30)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "LRS: 70 of 100 steps (70.0 %), 2 s/step, 01:00 left"
    assert lines[1] == "LRS: 100 of 160 steps (62.5 %), 2 s/step, 02:00 left"


def test_nothing_is_shown_if_not_wanted(clock, capsys):
    with Progress(10, "sample", "image", shown=False) as progress:
        clock.now += 240
        progress.update(2)
    assert capsys.readouterr().err == ""


def test_lines_go_to_the_logger_once_its_level_is_set(clock, capsys, caplog, level):
    level(logging.INFO)
    with Progress(2, "sample", "image") as progress:
        progress.update(2)
    assert caplog.messages == ["sample: 2 of 2 images (100.0 %) in 00:00"]
    level(logging.WARNING)
    with Progress(2, "sample", "image") as progress:
        progress.update(2)
    assert len(caplog.messages) == 1 and capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, "sample", "image") as progress:
        progress.update(2)
    assert "2/2" in capsys.readouterr().err


def test_the_status_is_written_at_the_beginning_every_ten_seconds_and_at_the_end(clock, tmp_path):
    path = tmp_path / "status.json"
    with Progress(100, "train", "step", initial=20, status=path) as progress:
        assert read_status(path)["done"] == 20 and read_status(path)["per_second"] is None
        clock.now += 9
        progress.update(18)
        assert read_status(path)["done"] == 20
        clock.now += 1
        progress.update(2, note="loss 3")
        found = read_status(tmp_path)
        expected = {"state": "running", "done": 40, "total": 100, "per_second": 2.0, "seconds_left": 30.0}
        expected |= {"note": "loss 3", "alive": True, "process": os.getpid(), "error": None, "unit": "step"}
        assert {name: found[name] for name in expected} == expected
        assert describe(found).startswith("train: running, 40 of 100 steps (40.0 %), 2 steps/s, 00:30 left, loss 3; ")
        progress.update(60)
    found = read_status(tmp_path)
    assert (found["state"], found["done"], found["seconds_left"]) == ("finished", 100, 0)
    assert os.listdir(tmp_path) == ["status.json"]


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [(ValueError("too\nlarge"), "failed", "too large"), (KeyboardInterrupt(), "interrupted", None)],
)
def test_how_a_run_ended(tmp_path, error, state, said):
    with pytest.raises(type(error)), Progress(10, "train", "step", status=tmp_path / "status.json"):
        raise error
    found = read_status(tmp_path)
    assert (found["state"], found["error"]) == (state, said)
    assert (said or "interrupted") in describe(found)


def test_a_killed_process_is_noticed(tmp_path):
    code = (
        "import os, sys; from langevin_ext._progress import Progress\n"
        "Progress(10, 'train', 'step', status=sys.argv[1]).__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "status.json")], stderr=subprocess.DEVNULL)
    found = read_status(tmp_path)
    assert found["state"] == "running" and found["alive"] is False
    done = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert done.exit_code == 0 and "which has ended without a word: call it again" in done.output
    told = json.loads(CliRunner().invoke(main, ["status", str(tmp_path), "--json"]).output)
    assert told["total"] == 10 and told["alive"] is False


def test_on_another_machine_only_silence_is_known(tmp_path):
    with Progress(10, "train", "step", status=tmp_path / "status.json"):
        told = json.loads((tmp_path / "status.json").read_text())
        told |= {"host": "elsewhere", "updated": "2020-01-01T00:00:00+00:00"}
    (tmp_path / "status.json").write_text(json.dumps(told))
    found = read_status(tmp_path)
    assert found["alive"] is None and "silent for longer than usual" in describe(found)


def test_a_status_that_cannot_be_written_is_said_once(tmp_path, clock):
    with pytest.warns(UserWarning, match="no status is written to .*nowhere") as warned:
        with Progress(10, "train", "step", status=tmp_path / "nowhere" / "status.json") as progress:
            clock.now += 100
            progress.update()
    assert len(warned) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": "train"}', "[" * 5000, '{"updated": 1e999}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(ValueError, match="must be the status file of a run"):
        read_status(tmp_path)


def test_sampling_writes_a_status(tmp_path):
    model = langevin_ext.scores.Gaussian(torch.zeros(1, 2, 2), variance=1.0, sigmas=[1.0, 0.5])
    x = langevin_ext.sample(model, n=5, batch_size=2, n_steps_each=3, eps=1e-3, status=tmp_path / "s", progress=False)
    found = read_status(tmp_path / "s")
    assert (found["state"], found["done"], found["total"], found["task"]) == (
        "finished",
        21,
        21,
        "annealed",
    )  # 3 batches of 7 rows
    assert len(x) == 5 and found["note"] == "sigma 0.5"
    with pytest.raises(ValueError, match="argument status must be a file in a folder that exists, got"):
        langevin_ext.sample(model, n=5, status=tmp_path / "no" / "s", progress=False)


@pytest.mark.parametrize(("chosen", "lines"), [("info", 1), ("warning", 0)])
def test_log_level_of_the_command(tmp_path, chosen, lines):
    command = [sys.executable, "-m", "langevin_ext", "--log-level", chosen, "sample", "--model", "digits", "-n", "1"]
    command += ["--steps-each", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [line for line in done.stderr.splitlines() if "INFO annealed: " in line]
    assert len(found) == lines and len(done.stderr.splitlines()) == lines, done.stderr
    assert read_status(tmp_path / "out")["state"] == "finished"


def test_a_folder_without_status(tmp_path):
    done = CliRunner().invoke(main, ["status", str(tmp_path)])
    assert done.exit_code == 1 and "there is no status.json in it" in done.output


@pytest.mark.parametrize("stderr", ["full", "closed", None])
def test_a_run_goes_on_where_its_lines_cannot_be_written(monkeypatch, tmp_path, capsys, stderr):
    file = None if stderr is None else open("/dev/full" if stderr == "full" else os.devnull, "w")
    if stderr == "closed":
        file.close()
    monkeypatch.setattr(sys, "stderr", file)
    if stderr == "closed":
        _progress.say("a line")
    else:
        with Progress(3, "train", "step", status=tmp_path / "status.json") as progress:
            progress.update(3)
        assert read_status(tmp_path)["state"] == "finished"
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    if stderr == "full":
        with contextlib.suppress(OSError):  # the line that it still holds
            file.close()
