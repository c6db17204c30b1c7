"""Signals and losses that are not finite."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import click
import pytest
import torch
from click.testing import CliRunner
from linear_score import LinearScore, small
from safetensors.torch import load_file
from sampling_helpers import Counting as CountedModel

from langevin_ext import cli, sample, scores
from langevin_ext._interruption import Interruption, Terminated
from langevin_ext.samplers import record
from langevin_ext.training import describe, read_log, state, trainer

FIELD = scores.GaussianField((1, 3, 4))
RUN = {"n": 5, "seed": 3, "batch_size": 2, "n_steps_each": 4, "progress": False}
ROWS = 41  # per batch
CHECKPOINT, MODEL = state.CHECKPOINT, state.MODEL


def same_file(one, other):
    one, other = load_file(one), load_file(other)
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def send(number, at):
    """A callback that sends this process a signal after the update number `at`."""
    seen = []

    def callback(now):
        seen.append(now)
        if len(seen) == at:
            os.kill(os.getpid(), number)

    return callback


SIGNALS = pytest.mark.parametrize("number, kind", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])


@SIGNALS
def test_a_signal_ends_training_with_a_checkpoint(tmp_path, number, kind):
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(kind):
        small(tmp_path / "run", 24, callback=send(number, 11))
    assert handlers == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    assert describe(tmp_path / "run" / CHECKPOINT)["metadata"]["step"] == 11
    small(tmp_path / "run", 24)
    small(tmp_path / "whole", 24)
    assert same_file(tmp_path / "run" / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)


@SIGNALS
@pytest.mark.parametrize("at", [3, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS - 1])
def test_a_signal_ends_sampling_with_a_checkpoint(tmp_path, monkeypatch, number, kind, at):
    monkeypatch.setattr(record, "SAVING_SHARE", 1e-9)  # after the first step, and at the end
    model = CountedModel(FIELD)
    with pytest.raises(kind):
        sample(model, checkpoint=tmp_path / "run", callback=send(number, at), **RUN)
    assert model.calls == at
    assert torch.equal(sample(model, checkpoint=tmp_path / "run", **RUN), sample(FIELD, **RUN))
    assert model.calls == 3 * ROWS  # what had been done was not done again


def test_a_signal_in_the_last_step_changes_nothing(tmp_path):
    x = sample(FIELD, checkpoint=tmp_path / "run", callback=send(signal.SIGTERM, 3 * ROWS), **RUN)
    assert torch.equal(x, sample(FIELD, **RUN))


def test_a_second_signal_does_not_wait():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.asked is Terminated
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


COMMANDS = {
    "train": "train rings:400 --hidden 8 --batch-size 8 --save-every 100000 --steps 1000000 --out",
    "sample": "sample --model digits -n 2 --steps-each 100000 --eps 1e-4 --out",
}


@pytest.mark.parametrize(
    "command, number, status, word",
    [("train", signal.SIGTERM, 143, "terminated"), ("sample", signal.SIGINT, 130, "interrupted")],
)
def test_commands_end_with_a_sentence_and_their_status(tmp_path, command, number, status, word):
    arguments = [sys.executable, "-m", "langevin_ext", *COMMANDS[command].split(), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    file = tmp_path / "run" / {"train": CHECKPOINT, "sample": "run.safetensors"}[command]
    deadline = time.monotonic() + 100
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == status, errors
    assert re.split("[\r\n]", errors.strip())[-1] == f"langevin-ext: {word}; call it again in the same way to go on"
    assert "Traceback" not in errors
    if command == "train":
        assert describe(file)["metadata"]["step"] > 0
    else:
        record.read_tensors(file)
    assert not list((tmp_path / "run").glob(".*"))


def test_any_command_ends_by_sigterm_with_its_status(monkeypatch):
    """Also one that has nothing to save."""

    @click.command()
    def wait():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setitem(cli.main.commands, "wait", wait)
    usual = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        done = CliRunner().invoke(cli.main, ["wait"])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert done.exit_code == 143 and done.stderr == "langevin-ext: terminated; call it again in the same way to go on\n"


class Breaks(LinearScore):
    """A network whose score turns NaN at some steps, and whose gradient is infinite at another."""

    def __init__(self, bad=(4, 8), infinite=(15,)):
        super().__init__()
        self.bad, self.infinite = bad, infinite

    def forward(self, x, level):
        step = self.samples_seen.item() // 16
        score = super().forward(x, level)
        if step in self.infinite:
            score.register_hook(lambda grad: grad * math.inf)
        return score * math.nan if step in self.bad else score


def test_skips_steps_that_are_not_finite(tmp_path):
    small(tmp_path / "whole", 24, Breaks(), on_nan="skip")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [5, 10, 15, 20, 24]
    assert [line.get("skipped") for line in lines(tmp_path / "whole")] == [1, 2, 2, 3, 3]
    losses = read_log(tmp_path / "whole")["loss"]
    assert losses.isfinite().all()
    metadata = describe(tmp_path / "whole" / CHECKPOINT)["metadata"]
    assert (metadata["skipped"], metadata["skipped_in_a_row"], metadata["step"]) == (3, 0, 24)
    for at in (3, 4, 5, 9, 15, 16):
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / f"{at}", 24, Breaks(), on_nan="skip", callback=send(signal.SIGINT, at))
        small(tmp_path / f"{at}", 24, Breaks(), on_nan="skip")
        assert same_file(tmp_path / f"{at}" / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)
        assert same_file(tmp_path / f"{at}" / MODEL, tmp_path / "whole" / MODEL)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_step_left_out_changes_no_weight(tmp_path):
    kept = []

    def keep(now):
        state = [value.clone() for value in now["trainer"].model.parameters()]
        moments = [v.clone() for one in now["trainer"].optimizer.state.values() for v in one.values()]
        average = [value.clone() for value in now["trainer"].ema.state_dict().values() if value.is_floating_point()]
        kept.append((now["loss"], state + moments + average))

    small(tmp_path / "run", 6, Breaks(bad=(3,), infinite=()), on_nan="skip", callback=keep)
    assert math.isnan(kept[3][0]) and not any(math.isnan(kept[i][0]) for i in (0, 1, 2, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(kept[2][1], kept[3][1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(kept[3][1], kept[4][1], strict=True))


def test_a_run_that_stopped_goes_on_by_skipping(tmp_path):
    with pytest.raises(FloatingPointError, match="loss is not finite at step 4, .* after 0 steps$"):
        small(tmp_path / "run", 24, Breaks())
    small(tmp_path / "run", 24, Breaks(), on_nan="skip")
    small(tmp_path / "whole", 24, Breaks(), on_nan="skip")
    assert same_file(tmp_path / "run" / CHECKPOINT, tmp_path / "whole" / CHECKPOINT)


def test_does_not_skip_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "MAX_SKIPPED", 6)
    sentence = "loss is not finite at step 15, .* of the data, the 6th such step in a row; the last good checkpoint is"
    for _ in range(2):  # counted on over a stop
        with pytest.raises(FloatingPointError, match=sentence):
            small(tmp_path / "run", 24, Breaks(bad=range(10, 100), infinite=()), on_nan="skip")
    with pytest.raises(ValueError, match="^train: on_nan must be 'stop' or 'skip', got 'no'$"):
        small(tmp_path / "other", 24, on_nan="no")
