"""A run that was stopped anywhere ends bit-equal to one that was not, and nothing good is ever overwritten."""

import copy
import json
import math
import os
import signal

import pytest
import torch
from linear_score import IMAGES, QUIET, LinearScore, digits, small
from safetensors.torch import load_file

from langevin_ext import data, noise
from langevin_ext.training import EMA, Settings, Trainer, read_log, state, train


def same_run(a, b):
    """All tensors of both files and all lines of the log but the seconds are equal."""
    for name in ("checkpoint.safetensors", "model.safetensors"):
        first, second = load_file(a / name), load_file(b / name)
        assert first.keys() == second.keys()
        for key in first:
            assert torch.equal(first[key], second[key]), key
    logs = [[{**json.loads(line), "seconds": 0} for line in (out / "log.jsonl").open()] for out in (a, b)]
    assert logs[0] == logs[1]


def test_resume_is_exact(tmp_path):
    whole = small(tmp_path / "whole", 24)
    small(tmp_path / "parts", 12)
    parts = small(tmp_path / "parts", 24)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert all(torch.equal(v, parts.state_dict()[k]) for k, v in whole.state_dict().items())
    small(tmp_path / "parts", 24)  # nothing left to do
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("options", [{"ema_warmup": True, "grad_clip": 0.5}, {"ema": None}, {"precision": "bf16"}])
def test_resume_is_exact_with_options(tmp_path, options):
    small(tmp_path / "whole", 10, **options)
    small(tmp_path / "parts", 4, **options)
    small(tmp_path / "parts", 10, **options)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_resume_is_exact_with_a_network_of_the_package(tmp_path):
    from langevin_ext.models import NCSN

    torch.manual_seed(0)
    start = NCSN((1, 8, 8), 4, [1.0, 0.3, 0.1])
    images = data.ImageDataset((noise.uniform((20, 1, 8, 8), 1) * 255).to(torch.uint8))
    options = {"batch_size": 8, "ema": 0.9, **QUIET}
    whole = train(copy.deepcopy(start), images, out=tmp_path / "whole", steps=4, **options)
    train(copy.deepcopy(start), images, out=tmp_path / "parts", steps=2, **options)
    train(NCSN((1, 8, 8), 4, [1.0, 0.3, 0.1]), images, out=tmp_path / "parts", steps=4, **options)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert not torch.equal(whole.begin_conv.weight, start.begin_conv.weight)


def test_resume_after_a_crash_between_checkpoints(tmp_path):
    small(tmp_path / "whole", 24)

    def crash(info):
        if info["step"] == 12:
            raise RuntimeError("the machine stops")

    with pytest.raises(RuntimeError):
        small(tmp_path / "parts", 24, callback=crash)
    assert state.checkpoint.describe(tmp_path / "parts" / state.CHECKPOINT)["metadata"]["step"] == 7
    assert read_log(tmp_path / "parts")["step"].tolist() == [5, 10]
    (tmp_path / "parts" / ".checkpoint.safetensors.123.tmp").write_bytes(b"half")  # killed while writing
    small(tmp_path / "parts", 24)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert not list((tmp_path / "parts").glob(".*.tmp"))


def test_resume_after_a_failed_write(tmp_path, monkeypatch):
    small(tmp_path / "whole", 24)
    real = os.replace

    def full(source, target):
        if str(target).endswith(state.CHECKPOINT) and (tmp_path / "parts" / state.CHECKPOINT).exists():
            raise OSError("no space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        small(tmp_path / "parts", 24)
    monkeypatch.undo()
    small(tmp_path / "parts", 24)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("how", ["signal", "exception"])
def test_interrupt_writes_a_last_checkpoint(tmp_path, how):
    small(tmp_path / "whole", 24)

    def interrupt(info):
        if info["step"] == 11:
            if how == "exception":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "parts", 24, callback=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert state.checkpoint.describe(tmp_path / "parts" / state.CHECKPOINT)["metadata"]["step"] == 11
    small(tmp_path / "parts", 24)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_interrupt_within_a_step_saves_no_half_step(tmp_path, monkeypatch):
    small(tmp_path / "whole", 24)
    original, calls = EMA.update, []

    def impatient(self, model):
        calls.append(1)
        if len(calls) == 10:  # two Ctrl-C: after Adam's step, before the average's
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        original(self, model)

    monkeypatch.setattr(EMA, "update", impatient)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "parts", 24)
    monkeypatch.undo()
    assert state.checkpoint.describe(tmp_path / "parts" / state.CHECKPOINT)["metadata"]["step"] == 7
    small(tmp_path / "parts", 24)
    same_run(tmp_path / "whole", tmp_path / "parts")


class Breaks(LinearScore):
    """A network whose score of the samples at one level turns NaN at some step."""

    at = 9

    def forward(self, x, level):
        score = super().forward(x, level)
        broken = (level == 1) & (self.samples_seen == 16 * self.at)
        return torch.where(broken[:, None, None, None], math.nan, score)


def test_stops_on_a_loss_that_is_not_finite(tmp_path):
    model = Breaks()
    with pytest.raises(
        FloatingPointError,
        match=r"train: loss is not finite at step 8, level 1, sample [\d, ]+ of the"
        r" data; the last good checkpoint is .*checkpoint.safetensors, after"
        r" 7 steps$",
    ):
        small(tmp_path / "run", 24, model)
    trainer = Trainer(LinearScore(), digits(), Settings(batch_size=16, flip=True))
    trainer.step = 8
    _, level, indices = trainer.batch()
    bad = ", ".join(str(i) for i in indices[level == 1].tolist()[:8])
    model = Breaks()
    with pytest.raises(FloatingPointError, match=f"sample {bad}"):
        small(tmp_path / "again", 24, model)
    assert all(p.isfinite().all() for p in model.parameters())
    small(tmp_path / "short", 7)
    kept, short = (load_file(tmp_path / name / state.CHECKPOINT) for name in ("run", "short"))
    assert kept.keys() == short.keys() and all(torch.equal(value, kept[name]) for name, value in short.items())
    assert not (tmp_path / "run" / state.MODEL).exists()


def test_never_saves_weights_that_are_not_finite(tmp_path):
    def poison(info):
        if info["step"] == 13:
            info["trainer"].model.b.register_hook(lambda grad: grad * math.nan)

    with pytest.raises(FloatingPointError, match=r"weights are not finite after step 13: b; .* after 7 steps"):
        small(tmp_path / "run", 24, callback=poison)
    assert all(v.isfinite().all() for v in load_file(tmp_path / "run" / state.CHECKPOINT).values())


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    out = tmp_path_factory.mktemp("earlier") / "run"
    small(out, 7)
    return out


CHANGES = [
    ({"lr": 0.02}, r"train: lr must be that of .*checkpoint.safetensors, 0.01, got 0.02"),
    ({"seed": 1}, "train: seed must be that of .*, 0, got 1"),
    ({"batch_size": 8}, "train: batch_size must be that of .*, 16, got 8"),
    ({"ema": None}, "train: ema must be that of .*, 0.999, got None"),
    ({"flip": False}, "train: flip must be that of .*, True, got False"),
    ({"anneal_power": 1.0}, "train: anneal_power must be that of .*, 2.0, got 1.0"),
    ({"precision": "bf16"}, "train: precision must be that of .*, 'fp32', got 'bf16'"),
    ({"model": LinearScore(sigmas=[1.0, 0.5])}, r"model.sigmas must be that of .*, \[1.0, 0.3.*, got \[1.0, 0.5\]"),
    ({"steps": 5}, "train: steps must be at least 7, those of the run in .*, got 5"),
    ({"resume": False}, "train: out must be empty or new with resume=False, got the earlier run in"),
]


@pytest.mark.parametrize("changed, message", CHANGES)
def test_other_settings_are_refused(earlier, changed, message):
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    with pytest.raises(ValueError, match=message):
        small(earlier, **{"steps": 9, **changed})
    assert before == {path.name: path.read_bytes() for path in earlier.iterdir()}


def test_other_data_are_refused(earlier):
    with pytest.raises(ValueError, match=r"train: data must be that of .*, '[0-9a-f]{64}', got '[0-9a-f]{64}'"):
        train(LinearScore(), data.ImageDataset(IMAGES[:20]), out=earlier, steps=9, batch_size=16, lr=0.01, flip=True)


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"train: out must be empty, new or an earlier run, got .* notes.txt in it"):
        small(tmp_path, 3)
    with pytest.raises(ValueError, match=r"train: out must be a folder, got the file .*notes.txt"):
        small(tmp_path / "notes.txt", 3)
    with pytest.raises(ValueError, match=r"train: resume=True needs .*checkpoint.safetensors, got a folder without it"):
        small(tmp_path / "new", 3, resume=True)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes.txt"]
    (tmp_path / "new" / state.CHECKPOINT).write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"train: .*checkpoint.safetensors is no whole safetensors file"):
        small(tmp_path / "new", 3)
    state.checkpoint.save(tmp_path / "new" / state.CHECKPOINT, LinearScore())
    with pytest.raises(ValueError, match=r"train: .*checkpoint.safetensors must be the checkpoint of a training run"):
        small(tmp_path / "new", 3)
