"""Training: it reaches the optimum, its step is what the definitions say, and its files say where they come from."""

import json
import math
import sys

import pytest
import torch
from linear_score import IMAGES, QUIET, LinearScore, build, digits, small
from safetensors.torch import load_file

from langevin_ext import data, losses, noise
from langevin_ext.training import Settings, Trainer, load, read_log, state, train
from langevin_ext.training.log import Board


def gaussian(n=4096, shape=(1, 4, 4)):
    return 0.5 + 0.25 * noise.normal((n, *shape), 21)


def test_reaches_the_optimal_loss(tmp_path):
    x = gaussian()
    mean, variance = x.double().mean(), x.double().var()
    model = LinearScore(sigmas=[10 ** (-2 * i / 9) for i in range(10)])
    start = model.expected_loss(mean, variance)
    assert torch.equal(start, torch.full((10,), 8.0, dtype=torch.float64))  # the zero network: D/2
    trained = train(model, x, out=tmp_path / "run", steps=600, lr=0.01, ema=0.98, **QUIET)
    best = trained.best_loss(variance)
    torch.testing.assert_close(best.mean().item(), 16 * 0.33785665, rtol=0.01, atol=0)  # 16 pixels of that law
    excess = (trained.expected_loss(mean, variance) - best) / best
    assert (excess < 5e-4).all() and (excess > -1e-9).all(), excess
    record = read_log(tmp_path / "run")
    assert record["step"].tolist() == list(range(100, 601, 100))
    # the last line of the log: the mean of 100 batches, about 1,280 samples of 16 pixels a level
    torch.testing.assert_close(record["levels"][-1], best, rtol=0.05, atol=0)
    assert record["loss"][-1] < 1.02 * best.mean() and (record["seconds"].diff() > 0).all()
    assert not trained.training and torch.equal(load(tmp_path / "run" / "model.safetensors", build=build).a, trained.a)


def test_three_steps_by_hand():
    # data, levels, noise, gradient of the batch mean, Adam and average, each from its definition
    model, reference = LinearScore(), LinearScore()
    for network in (model, reference):
        with torch.no_grad():
            network.a.copy_(torch.tensor([0.3, 0.2, 0.1]))
    trainer = Trainer(model, digits(), Settings(batch_size=16, seed=4, ema=0.9))
    weights = reference.a.detach().clone()
    average, first, second = weights.clone(), torch.zeros(3), torch.zeros(3)
    for t in range(3):
        mean = trainer.update()
        x = (
            IMAGES[data.indices_for(t, 16, 40, 4)] + noise.uniform((16, 1, 4, 4), 4, step=t, stream=noise.DEQUANTISE)
        ) / 256
        level = (noise.words((16,), 4, step=t, stream=noise.LABELS).double() * 3 / 2**32).long()
        reference.zero_grad()
        loss = losses.dsm(reference, x, level, seed=4, step=t)
        loss.mean().backward()
        assert mean == pytest.approx(loss.mean().item(), rel=1e-6)
        torch.testing.assert_close(model.a.grad, reference.a.grad)
        first, second = 0.9 * first + 0.1 * reference.a.grad, 0.999 * second + 0.001 * reference.a.grad**2
        root = (second / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
        weights = weights - 1e-3 * first / (1 - 0.9 ** (t + 1)) / root
        average = 0.9 * average + 0.1 * weights
        torch.testing.assert_close(model.a.detach(), weights, rtol=0, atol=2e-7)
        with torch.no_grad():
            reference.load_state_dict(model.state_dict())
    averaged = trainer.averaged()
    torch.testing.assert_close(averaged.a.detach(), average, rtol=0, atol=2e-7)
    assert averaged.samples_seen.item() == 48 and not averaged.training


def test_level_table():
    trainer = Trainer(LinearScore(), digits(), Settings(batch_size=16))
    sums, counts = torch.zeros(3), torch.zeros(3)
    for _ in range(2):
        x, level, _ = trainer.batch()
        loss = losses.dsm(trainer.model, x, level, seed=0, step=trainer.step).detach()
        sums, counts = sums.index_add(0, level, loss), counts.index_add(0, level, torch.ones(16))
        trainer.update()
    line = trainer.losses.line(2, 0.5)
    assert line["levels"] == pytest.approx((sums / counts).tolist(), rel=1e-5)
    assert line["loss"] == pytest.approx(sums.sum().item() / 32, rel=1e-5) and line["step"] == 2


def test_levels_are_uniform():
    trainer = Trainer(LinearScore(), digits(), Settings(batch_size=9000))
    counts = trainer.batch()[1].bincount(minlength=3)
    assert counts.sum() == 9000 and (counts - 3000).abs().max() < 4 * math.sqrt(9000 * 2 / 9)


def test_gradient_clipping_limits_the_norm(tmp_path):
    model = LinearScore()
    trainer = Trainer(model, digits(), Settings(batch_size=16, grad_clip=1e-3))
    trainer.update()
    norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    out = tmp_path_factory.mktemp("earlier") / "run"
    small(out, 7)
    return out


def test_model_file_says_where_it_comes_from(earlier):
    facts = state.checkpoint.describe(earlier / state.MODEL)
    assert facts["weights"] == ["ema"] and facts["config"]["class"] == "LinearScore"
    origin = facts["metadata"]
    assert origin["steps"] == 7 and origin["settings"]["lr"] == 0.01 and origin["data"] == digits().fingerprint
    assert origin["loss"] == read_log(earlier)["loss"][-1].item()


def test_unfinished_runs_can_be_sampled(earlier):
    # the training checkpoint itself is a checkpoint of the network
    tensors = load_file(earlier / state.CHECKPOINT)
    assert torch.equal(load(earlier / state.CHECKPOINT, build=build).a, tensors["ema.a"])
    assert torch.equal(load(earlier / state.CHECKPOINT, ema=False, build=build).a, tensors["model.a"])


def test_log_lines(earlier, tmp_path):
    record = read_log(earlier)
    assert record["step"].tolist() == [5, 7] and record["levels"].shape == (2, 3)
    rows = [json.loads(line) for line in (earlier / "log.jsonl").open()]
    assert [row.get("partial") for row in rows] == [None, True]
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0, "levels": [null, 3.0], "seconds": 1}\n{"step": 2, "lo')
    cut = read_log(path)
    assert cut["step"].tolist() == [1] and math.isnan(cut["levels"][0, 0]) and cut["levels"][0, 1] == 3.0
    path.write_text('{"step": 1, "loss": 2.0}\n{"loss": 1}\n{"step": 3, "loss": 1.0}\n')
    with pytest.raises(ValueError, match=r"read_log: .*log.jsonl line 2 must be a JSON object with step and loss, got"):
        read_log(path)
    path.write_text('{"step": 1, "loss": 2.0, "levels": [1]}\n{"step": 2, "loss": 2.0, "levels": [1, 2]}\n')
    with pytest.raises(ValueError, match=r"log.jsonl must have as many levels on every line"):
        read_log(path)
    with pytest.raises(FileNotFoundError, match=r"read_log: file must exist, got"):
        read_log(tmp_path / "none")


def test_progress_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    small(tmp_path / "run", 20, progress=True)
    shown = capsys.readouterr().err
    assert "20/20" in shown and "loss" in shown and "step/s" in shown


def test_tensorboard_if_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(Board, "said", False)
    for name in ("one", "two"):
        small(tmp_path / name, 3, tensorboard=True)
    assert capsys.readouterr().err.count("no TensorBoard log, because tensorboard is not installed") == 1


def test_tensorboard_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small(tmp_path / "run", 10, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    record = read_log(tmp_path / "run")
    assert [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars("loss")] == list(
        zip(record["step"].tolist(), record["loss"].tolist(), strict=True)
    )
    assert [e.value for e in events.Scalars("loss_level/2")] == pytest.approx(record["levels"][:, 2].tolist(), rel=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, r"train: batch_size must be an integer in \[1, 2\^32\), got 0"),
        ({"batch_size": 64.0}, r"train: batch_size must be an integer in \[1, 2\^32\), got 64.0"),
        ({"steps": 3.0}, r"train: steps must be an integer in \[1, 2\^32\), got 3.0"),
        ({"seed": 1.5}, r"train: seed must be an integer in \[0, 2\^64\), got 1.5"),
        ({"anneal_power": math.inf}, "train: anneal_power must be finite, got inf"),
        (
            {"model": LinearScore().requires_grad_(False)},
            "train: model must have trainable parameters, got LinearScore",
        ),
        ({"lr": 0.0}, "train: lr must be positive and finite, got 0.0"),
        ({"seed": -1}, r"train: seed must be an integer in \[0, 2\^64\), got -1"),
        ({"grad_clip": 0.0}, "train: grad_clip must be positive or None, got 0.0"),
        ({"precision": "fp8"}, "train: precision must be 'fp32' or 'bf16', got 'fp8'"),
        ({"ema": 1.0}, r"EMA: decay must be in \[0, 1\), got 1.0"),
        ({"steps": 0}, r"train: steps must be an integer in \[1, 2\^32\), got 0"),
        ({"save_every": 0}, r"train: save_every must be an integer"),
        ({"log_every": 0.5}, r"train: log_every must be an integer"),
        ({"resume": "maybe"}, "train: resume must be 'auto', True or False, got 'maybe'"),
        ({"model": LinearScore((1, 5, 5))}, r"train: data must have the model's shape \(1, 5, 5\), got \(1, 4, 4\)"),
        ({"model": torch.nn.Linear(1, 1)}, r"train: model must have config\(\).*, got Linear"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        small(tmp_path / "run", **{"steps": 3, **options})
    assert not (tmp_path / "run").exists()


def test_wrong_tensor_data(tmp_path):
    with pytest.raises(ValueError, match=r"data must be a dataset or a float tensor .*, got torch.uint8 \(40, 1,"):
        train(LinearScore(), IMAGES, out=tmp_path / "run", steps=1)
    with pytest.raises(ValueError, match="train: flip must be False for data given as a tensor, got True"):
        train(LinearScore(), gaussian(8), out=tmp_path / "run", steps=1, flip=True, **QUIET)
    assert not (tmp_path / "run").exists()
