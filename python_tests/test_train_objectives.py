"""Training by every objective: the step, exact continuation, the settings of older runs, and the command."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from linear_score import QUIET, small
from safetensors.torch import load_file
from test_training_resume import same_run

import langevin_ext
from langevin_ext import losses, noise, scores
from langevin_ext.cli import main
from langevin_ext.models import MLP, NCSN, CLDNet
from langevin_ext.training import Settings, Trainer, checkpoint, read_log, state, train

LEVELS = [1.0, 0.3, 0.1]
OPTIONS = {"batch_size": 16, "lr": 0.01, "save_every": 3, "log_every": 4, **QUIET}
OBJECTIVES = [
    ("dsm", {}, losses.dsm),
    ("ssm", {"noisy": True}, losses.ssm),
    ("ssm", {"noisy": False}, losses.ssm),
    ("ssm-vr", {"noisy": True}, losses.ssm_vr),
    ("ssm-vr", {"noisy": False}, losses.ssm_vr),
]


def points(n=100):
    return noise.normal((n, 2, 1, 1), 5)


def network():
    torch.manual_seed(0)
    return MLP((2, 1, 1), (8,), sigmas=LEVELS)


def velocity_network():
    torch.manual_seed(0)
    return CLDNet((2, 1, 1), hidden=(8,))


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name, options, function", OBJECTIVES)
def test_a_step_takes_the_loss_at_its_own_noise(name, options, function):
    trainer = Trainer(network(), points(), Settings(batch_size=16, objective=name, seed=3, anneal_power=1.5, **options))
    for step in range(2):
        x, level, _ = trainer.batch()
        expected = function(trainer.model, x, level, seed=3, step=step, anneal_power=1.5, **options)
        assert level.tolist() == (noise.words((16,), 3, step=step, stream=noise.LABELS) * 3 // 2**32).tolist()
        assert trainer.update() == pytest.approx(expected.mean().item(), rel=1e-6)


def test_a_step_of_a_velocity_model_takes_times():
    trainer = Trainer(velocity_network(), points(), Settings(batch_size=16, objective="hsm", seed=3))
    sums, counts = torch.zeros(10, dtype=torch.float64), torch.zeros(10)
    for step in range(2):
        x, t, _ = trainer.batch()
        u = noise.uniform((16,), 3, step=step, stream=noise.LABELS)
        torch.testing.assert_close(t, 1e-5 + (1 - 1e-5) * u**2)
        loss = losses.hsm(trainer.model, x, t, seed=3, step=step).detach()
        for i in range(16):
            sums[int(10 * t[i])] += loss[i]
            counts[int(10 * t[i])] += 1
        assert trainer.update() == pytest.approx(loss.mean().item(), rel=1e-6)
    line = trainer.losses.line(2, 0.5)
    expected = [s / c if c else None for s, c in zip(sums.tolist(), counts.tolist(), strict=True)]
    assert line["levels"] == pytest.approx(expected, rel=1e-5)
    assert trainer.bins(torch.tensor([1e-5, 0.05, 0.95, 1.0])).tolist() == [0, 0, 9, 9]


@pytest.mark.parametrize("name, options", [(name, options) for name, options, _ in OBJECTIVES] + [("hsm", {})])
def test_resume_is_exact(tmp_path, name, options):
    make = velocity_network if name == "hsm" else network
    options = {**OPTIONS, "objective": name, **options}
    start = make()
    whole = train(copy.deepcopy(start), points(), out=tmp_path / "whole", steps=10, **options)
    train(copy.deepcopy(start), points(), out=tmp_path / "parts", steps=5, **options)
    train(make(), points(), out=tmp_path / "parts", steps=10, **options)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert not torch.equal(whole.net[0].weight, start.net[0].weight)
    assert read_log(tmp_path / "whole")["levels"].shape == (3, 10 if name == "hsm" else 3)
    assert langevin_ext.training.describe(tmp_path / "whole" / state.MODEL)["metadata"]["settings"]["objective"] == name


def test_runs_of_before_the_objectives_go_on(tmp_path):
    small(tmp_path / "whole", 10)
    small(tmp_path / "parts", 5)
    path = tmp_path / "parts" / state.CHECKPOINT
    tensors, config, metadata, _ = checkpoint.read(path)
    for name in ("objective", "noisy"):
        del metadata["settings"][name]
    checkpoint.write(path, tensors, config, metadata)
    with pytest.raises(ValueError, match=r"train: objective must be that of .*, 'dsm', got 'ssm'"):
        small(tmp_path / "parts", 10, objective="ssm")
    small(tmp_path / "parts", 10)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_other_objectives_are_refused(tmp_path):
    train(network(), points(), out=tmp_path / "run", steps=2, objective="ssm", **OPTIONS)
    before = load_file(tmp_path / "run" / state.CHECKPOINT)
    for changed, message in (
        ({"objective": "ssm-vr"}, "train: objective must be that of .*, 'ssm', got 'ssm-vr'"),
        ({"objective": "ssm", "noisy": False}, "train: noisy must be that of .*, True, got False"),
    ):
        with pytest.raises(ValueError, match=message):
            train(network(), points(), out=tmp_path / "run", steps=4, **changed, **OPTIONS)
    after = load_file(tmp_path / "run" / state.CHECKPOINT)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_wrong_settings(tmp_path):
    with pytest.raises(ValueError, match=r"train: objective must be one of dsm, ssm, ssm-vr, ism, hsm, got 'nce'"):
        Settings(objective="nce")
    for name in ("dsm", "hsm"):
        with pytest.raises(
            ValueError, match=rf"train: noisy=False needs the objective ssm, ssm-vr or ism, got '{name}'"
        ):
            Settings(objective=name, noisy=False)
    with pytest.raises(ValueError, match=r"train: objective 'hsm' needs a velocity model, .*CLDNet, got MLP"):
        Trainer(network(), points(), Settings(objective="hsm"))
    with pytest.raises(ValueError, match=r"train: objective 'ssm' needs a model with noise levels, .* got CLDNet; a"):
        Trainer(velocity_network(), points(), Settings(objective="ssm"))
    with pytest.raises(ValueError, match=r"train: select_every needs a model with noise levels, got objective 'hsm'"):
        train(velocity_network(), points(), out=tmp_path / "run", steps=1, objective="hsm", select_every=1)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_names_the_times():
    class Breaks(CLDNet):
        def forward(self, u, t):
            return torch.where(t[:, None, None, None] > 0.5, math.nan, super().forward(u, t))

    trainer = Trainer(Breaks((2, 1, 1), hidden=(8,)), points(), Settings(batch_size=16, objective="hsm"))
    with pytest.raises(FloatingPointError, match=r"loss is not finite at step 0, time 0\.[5-9]\d*.*, sample \d+"):
        trainer.update()


def test_figure_2_of_ncsn(tmp_path):
    # arXiv:1907.05600, Figure 2: .2 N((-5,-5),I) + .8 N((5,5),I), 2-128-128-2, SSM-VR without noise, batches of 128.
    # The optimum is -1/2 J = -1.0 up to the overlap of the components; after 1,000 of its 10,000 steps the paper's
    # recipe has a loss of -.975 and half the squared score error at .032.
    mixture = scores.GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], [0.2, 0.8], 1.0)
    torch.manual_seed(0)
    options = {"objective": "ssm-vr", "noisy": False, "ema": None, "batch_size": 128, "seed": 7, **QUIET}
    model = train(MLP(), mixture.sample(128_000, seed=1), out=tmp_path / "run", steps=1000, **options)
    x = mixture.sample(10_000, seed=2)
    level = torch.zeros(len(x), dtype=torch.int64)
    with torch.no_grad():
        loss = losses.ism(model, x, level, seed=0, step=0, noisy=False).mean().item()
        error = 0.5 * (model(x, level) - mixture.at_sigma(x, 0.0)).square().flatten(1).sum(1).mean().item()
    assert -1.05 < loss < -0.9 and error < 0.1, (loss, error)
    # the exact score itself: the identity ism = 1/2 |s - s_p|^2 - 1/2 J within the error of 10,000 samples
    assert loss == pytest.approx(error - 1.0, abs=0.05)
    assert read_log(tmp_path / "run")["loss"][-1] < -0.9


def test_annealed_slicing_of_a_gaussian_reaches_its_optimum(tmp_path):
    # data N(0, I / 4) in the plane: -sigma^2 / (1/4 + sigma^2) at each level; the mean of the last 100 batches of 128
    sigmas = torch.tensor([1.0, 0.5, 0.25])
    torch.manual_seed(0)
    model = MLP((2, 1, 1), (32,), "silu", sigmas)
    options = {"objective": "ssm-vr", "batch_size": 128, "lr": 3e-3, "ema": 0.99, **QUIET}
    model = train(model, 0.5 * noise.normal((20_000, 2, 1, 1), 9), out=tmp_path / "run", steps=600, **options)
    x = 0.5 * noise.normal((20_000, 2, 1, 1), 10)
    for index, sigma in enumerate(sigmas.tolist()):
        level = torch.full((len(x),), index)
        best = -(sigma**2) / (0.25 + sigma**2)
        with torch.no_grad():
            loss = losses.ism(model, x, level, seed=1, step=index).double()
        # the excess 1/2 sigma^2 |s - s*|^2 is positive; .02 of a full range of 1 tells p = 2 from p = 1 or 0
        assert -4 * loss.std().item() / len(x) ** 0.5 < loss.mean().item() - best < 0.02


@pytest.mark.parametrize("name", ["ssm", "ssm-vr"])
def test_double_backward_through_ncsn(name, backend):
    # against a difference quotient along one weight: float64, step 1e-5
    torch.manual_seed(0)
    model = NCSN((1, 8, 8), 4, LEVELS).double()
    x, level = noise.uniform((2, 1, 8, 8), 3).double(), torch.tensor([0, 2])
    weight = model.begin_conv.weight

    def loss():
        return getattr(losses, name.replace("-", "_"))(model, x, level, seed=2, step=0).sum()

    loss().backward()
    expected, values = weight.grad[1, 0, 1, 2].item(), []
    for move in (1e-5, -2e-5):
        with torch.no_grad():
            weight[1, 0, 1, 2] += move
        values.append(loss().item())
    assert expected == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_ncsn_learns_by_slicing(tmp_path):
    torch.manual_seed(0)
    options = {**OPTIONS, "batch_size": 8, "objective": "ssm-vr", "lr": 1e-3}
    model = NCSN((1, 8, 8), 4, LEVELS)
    images = langevin_ext.data.open_dataset("digits", limit=64)
    train(model, images, out=tmp_path / "run", steps=12, **options)
    loss = read_log(tmp_path / "run")["loss"]
    assert loss[-1] < loss[0]


def test_command_on_vectors(tmp_path):
    result = run(
        "train", "mixture2d:500", "--out", tmp_path / "run", "--steps", 4, "--batch-size", 8, "--hidden", "6,5"
    )
    assert result.exit_code == 0, result.output
    assert "mlp with" in result.output and "500 vectors of 2 x 1 x 1" in result.output
    model = langevin_ext.load(tmp_path / "run" / "model.safetensors")
    assert isinstance(model, MLP) and model.hidden == (6, 5) and len(model.sigmas) == 10
    facts = langevin_ext.training.describe(tmp_path / "run" / "model.safetensors")["metadata"]
    assert facts["settings"]["objective"] == "dsm" and facts["data_name"] == "mixture2d:500"
    assert (tmp_path / "run" / "loss.png").exists()


def test_command_on_a_file_of_vectors_equals_the_function(tmp_path):
    x = noise.normal((50, 3), 4)
    np.save(tmp_path / "x.npy", x.numpy())
    options = ("--objective", "ssm-vr", "--no-noisy", "--sigmas", 1, 1, 1, "--activation", "silu", "--seed", 5)
    result = run(
        *("train", tmp_path / "x.npy", "--out", tmp_path / "run", "--steps", 4, "--batch-size", 8, "--hidden", 7),
        *options,
    )
    assert result.exit_code == 0, result.output
    torch.manual_seed(5)
    model = MLP((3, 1, 1), (7,), "silu", [1.0])
    kept = x[[i for i in range(50) if i % 10 != 9]].view(-1, 3, 1, 1)
    settings = {"objective": "ssm-vr", "noisy": False, "seed": 5, "batch_size": 8, "ema_warmup": True, **QUIET}
    expected = train(model, kept, out=tmp_path / "again", steps=4, **settings)
    trained = langevin_ext.load(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in expected.state_dict().items())


@pytest.mark.parametrize(
    "arguments, kind, network",
    [
        (("rings:100", "--objective", "hsm"), "cld-mlp", "mlp"),
        (("rings:100", "--model", "cld-mlp", "--hidden", "6"), "cld-mlp", "mlp"),
        (("digits", "--objective", "hsm", "--ngf", 4), "cld-refinenet", "refinenet"),
    ],
)
def test_command_for_velocity_models(tmp_path, arguments, kind, network):
    result = run("train", *arguments, "--out", tmp_path / "run", "--steps", 2, "--batch-size", 4, "--log-every", 1)
    assert result.exit_code == 0, result.output
    assert f"{kind} with" in result.output and "hsm" in result.output
    model = langevin_ext.load(tmp_path / "run" / "model.safetensors")
    assert isinstance(model, CLDNet) and model.network == network
    assert model.hidden == ((6,) if "--hidden" in arguments else (256, 256, 256))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert all(len(row["levels"]) == 10 for row in rows)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("rings", "--hidden", "6;5"), "--hidden must be like 128 or 128,128, got '6;5'"),
        (("rings", "--hidden", "0"), "MLP: hidden must be one or more positive integers, got (0,)"),
        (("rings", "--model", "ncsn"), "NCSN: shape must be (C, H, W) with H and W at least 8, got (2, 1, 1)"),
        (("rings", "--objective", "hsm", "--model", "mlp"), "train: objective 'hsm' needs a velocity model"),
        (
            ("rings", "--model", "cld-mlp", "--objective", "dsm"),
            "train: objective 'dsm' needs a model with noise levels",
        ),
        (("rings", "--no-noisy"), "train: noisy=False needs the objective ssm, ssm-vr or ism, got 'dsm'"),
        (("rings", "--flip"), "train: flip must be False for data given as vectors, got True"),
        (("rings", "--size", "8"), "open_dataset: rings: expected no size and no channels, which vectors do not have"),
        (("rings", "--select-every", "1"), "rings: expected images, got vectors of length 2, which only train takes"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, arguments, message):
    result = run("train", *arguments, "--out", tmp_path / "run", "--steps", 1, "--batch-size", 4)
    assert result.exit_code == 1 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_sliced_objectives_refuse_kinks():
    with pytest.raises(ValueError, match="'ssm-vr' needs a network with smooth activations"):
        Trainer(MLP((2, 1, 1), (4,), "relu"), points(), Settings(objective="ssm_vr"))


def test_exact_implicit_score_matching_trains():
    settings = Settings(batch_size=16, objective="ism", seed=3, lr=1e-2)
    trainer = Trainer(MLP((2, 1, 1), (16,), "silu", [1.0]), points(), settings)
    first = [trainer.update() for _ in range(60)]
    assert sum(first[-10:]) < sum(first[:10])
