"""Training by several processes: the same data, labels and noise, and but for rounding the same run."""

import os
import signal

import pytest
import torch
from click.testing import CliRunner
from linear_score import IMAGES, QUIET, LinearScore, small
from safetensors.torch import load_file
from several import command, together, told

from langevin_ext import _group, data, losses, noise
from langevin_ext.cli import main
from langevin_ext.models import MLP, NCSN, CLDNet
from langevin_ext.training import EMA, Settings, Trainer, read_log, state, train
from langevin_ext.training.parallel import Share

STEPS = 10


def network(seed=0, kind=MLP, **options):
    torch.manual_seed(seed)
    return kind((1, 8, 8), sigmas=[1.0, 0.3, 0.1], **(options or {"hidden": (16,)}))


def images():
    return data.ImageDataset((noise.uniform((20, 1, 8, 8), 1) * 255).to(torch.uint8))


def go(rank, out, steps=STEPS, model=None, **options):
    """A run of 7 samples a step, which 2 and 4 processes share unevenly; each process begins with other weights."""
    options = {"batch_size": 7, "lr": 0.01, "ema": 0.9, "log_every": 1, "save_every": 4, "flip": True, **options}
    train(model or network(rank), images(), out=out, steps=steps, **QUIET, **options)


def with_options(rank, out, steps, options):
    go(rank, out, steps, **options)


def weights(out):
    return load_file(out / state.CHECKPOINT)


def same_run(a, b):
    """The losses agree to rounding; the weights to what rounding becomes in Adam, which divides by the gradient."""
    first, second = read_log(a), read_log(b)
    assert torch.equal(first["step"], second["step"])
    torch.testing.assert_close(first["loss"], second["loss"], rtol=1e-4, atol=0)
    torch.testing.assert_close(first["loss"][:2], second["loss"][:2], rtol=1e-6, atol=0)
    torch.testing.assert_close(first["levels"], second["levels"], rtol=1e-3, atol=0, equal_nan=True)
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=2e-3, msg=lambda m, name=name: f"{name}: {m}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    go(0, out)
    return out


@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_gives_one_run(whole, tmp_path, size):
    assert together(size, go, tmp_path / "run") == [0] * size
    same_run(whole, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in whole.iterdir()}


def convolutions(rank, out):
    go(rank, out, 3, network(rank, NCSN, ngf=4), grad_clip=1.0)


def test_a_network_of_convolutions_with_clipped_gradients(tmp_path):
    convolutions(0, tmp_path / "one")
    assert together(2, convolutions, tmp_path / "two") == [0, 0]
    same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    "options", [{"grad_clip": 1.0}, {"accumulate": 3}, {"objective": "ssm-vr"}, {"precision": "bf16", "ema": None}]
)
def test_options_hold_over_processes(tmp_path, options):
    go(0, tmp_path / "one", 3, **{**options, "accumulate": 1})
    assert together(2, with_options, tmp_path / "two", 3, options) == [0, 0]
    one, two = read_log(tmp_path / "one")["loss"], read_log(tmp_path / "two")["loss"]
    # bfloat16 rounds to 2^-9, and convolutions of other batches in another order
    torch.testing.assert_close(one, two, rtol=2e-2 if "precision" in options else 1e-4, atol=0)


def velocity(rank, out):
    torch.manual_seed(0)
    points = torch.arange(24.0).reshape(12, 2, 1, 1) / 12 - 1
    train(CLDNet((2, 1, 1), "mlp", hidden=(8,)), points, out=out, steps=4, batch_size=5, log_every=1,
          objective="hsm", ema=0.9, **QUIET)  # fmt: skip


def test_times_and_noise_of_critical_damping_are_shared(tmp_path):
    velocity(0, tmp_path / "one")
    assert together(3, velocity, tmp_path / "three") == [0, 0, 0]
    one, three = read_log(tmp_path / "one")["loss"], read_log(tmp_path / "three")["loss"]
    torch.testing.assert_close(one, three, rtol=1e-5, atol=0)


def fewer(rank, out):
    go(rank, out, 3, batch_size=2)


def test_more_processes_than_samples(tmp_path):
    fewer(0, tmp_path / "one")
    assert together(3, fewer, tmp_path / "three") == [0, 0, 0]
    torch.testing.assert_close(
        read_log(tmp_path / "one")["loss"], read_log(tmp_path / "three")["loss"], rtol=1e-4, atol=0
    )


def test_the_number_of_processes_may_change(whole, tmp_path):
    out = tmp_path / "run"
    assert together(3, with_options, out, 3, {}) == [0, 0, 0]
    go(0, out, 6)
    assert together(2, with_options, out, STEPS, {}) == [0, 0]
    same_run(whole, out)
    assert read_log(out)["step"].tolist() == list(range(1, STEPS + 1))


def test_shares_are_disjoint_whole_and_even():
    for size, batch, accumulate in [(1, 7, 1), (1, 7, 3), (3, 7, 2), (4, 3, 2), (5, 128, 4)]:
        shares = [Share(_group.Group(rank, size), batch, accumulate).pieces for rank in range(size)]
        places = [place for pieces in shares for low, high in pieces for place in range(low, high)]
        assert places == list(range(batch))
        sizes = [sum(high - low for low, high in pieces) for pieces in shares]
        assert max(sizes) - min(sizes) <= 1 and all(len(pieces) <= accumulate for pieces in shares)


def test_accumulated_gradients_are_those_of_the_batch():
    trainers = [Trainer(network(), images(), Settings(batch_size=9, seed=3), accumulate) for accumulate in (1, 4)]
    for trainer in trainers:
        trainer._gradients()
    whole, pieces = ([p.grad for p in trainer.parameters.values()] for trainer in trainers)
    for one, other in zip(whole, pieces, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)  # float32 sums of up to 144 terms of size 1


def test_losses_take_the_place_in_the_batch():
    """The losses of a slice are those slices of the losses, for each objective: what parallel training rests on."""
    model, x = MLP((2, 1, 1), hidden=(8,), sigmas=[1.0, 0.1]), torch.randn(6, 2, 1, 1)
    level = torch.tensor([0, 1, 0, 1, 1, 0])
    for loss in (losses.dsm, losses.ssm, losses.ssm_vr):
        part = loss(model, x[2:5], level[2:5], seed=1, step=2, first=2)
        torch.testing.assert_close(part, loss(model, x, level, seed=1, step=2)[2:5])
        assert not torch.allclose(part, loss(model, x[2:5], level[2:5], seed=1, step=2))


class Broken(LinearScore):
    """Its loss is not finite in the process that has sample 12 of the batch, at step 5."""

    calls = 0

    def forward(self, x, level):
        y = super().forward(x, level)
        self.calls += 1
        return y if self.calls <= 5 or os.environ.get("RANK") == "0" else y * float("inf")


def test_a_loss_that_is_not_finite_ends_all_with_one_sentence(tmp_path):
    out = tmp_path / "run"
    status = together(3, command(lambda rank, out: small(out, 12, Broken(), save_every=2)), out)
    assert status == [1, 1, 1]
    (line,) = told(out, 3)
    assert "loss is not finite at step 5" in line and "the last good checkpoint is" in line and "after 4 steps" in line
    assert state.checkpoint.describe(out / state.CHECKPOINT)["metadata"]["step"] == 4


def lose(rank, out):
    def end(info):
        if rank == 1 and info["step"] == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    small(out, 12, save_every=2, callback=end)


def test_a_lost_process_ends_all_with_one_sentence_and_the_run_goes_on(tmp_path):
    out = tmp_path / "run"
    small(tmp_path / "whole", 12, save_every=2)
    assert together(3, command(lose), out) == [1, -signal.SIGKILL, 1]
    (line,) = told(out, 3)
    assert "has lost another one" in line and "the same call goes on from" in line
    assert state.checkpoint.describe(out / state.CHECKPOINT)["metadata"]["step"] in (4, 5)
    small(out, 12, save_every=2)
    torch.testing.assert_close(weights(tmp_path / "whole")["model.a"], weights(out)["model.a"], rtol=1e-4, atol=1e-5)


def interrupt(rank, out):
    def ask(info):
        if rank == 1 and info["step"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    small(out, 12, save_every=100, callback=ask)


def test_an_interruption_of_one_stops_all_after_the_same_step(tmp_path):
    out = tmp_path / "run"
    assert together(3, command(interrupt), out) == [130, 130, 130]
    assert told(out, 3) == ["langevin-ext: interrupted; call it again in the same way to go on"]
    assert state.checkpoint.describe(out / state.CHECKPOINT)["metadata"]["step"] == 6


def terminate(rank, out):
    def ask(info):
        if rank == 0 and info["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    small(out, 12, save_every=100, callback=ask)


def test_the_end_of_process_0_is_asked_for(tmp_path):
    out = tmp_path / "run"
    assert together(2, command(terminate), out) == [143, 130]
    assert told(out, 2) == ["langevin-ext: terminated; call it again in the same way to go on"]
    assert state.checkpoint.describe(out / state.CHECKPOINT)["metadata"]["step"] == 6
    assert not (out / ".lock").exists()


def skip(rank, out):
    small(out, 8, Broken(), log_every=1, on_nan="skip")


def test_all_leave_out_the_step_that_is_not_finite_in_one(tmp_path):
    """In the processes other than 0 the loss is infinite from step 5 on, and with it the sum of the gradients."""
    out = tmp_path / "run"
    assert together(2, skip, out) == [0, 0]
    small(tmp_path / "whole", 5)
    after = state.checkpoint.describe(out / state.CHECKPOINT)["metadata"]
    assert (after["step"], after["skipped"], after["skipped_in_a_row"]) == (8, 3, 3)
    torch.testing.assert_close(weights(tmp_path / "whole")["model.a"], weights(out)["model.a"], rtol=1e-4, atol=1e-5)


def test_wrong_folders_and_different_data_end_all_with_one_sentence(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious").write_text("mine")
    assert together(2, command(lambda rank, out: small(out, 2)), out) == [1, 1]
    (line,) = told(out, 2)
    assert "out must be empty, new or an earlier run" in line

    def different(rank, out):
        train(LinearScore(), data.ImageDataset(IMAGES[rank:]), out=out, steps=2, **QUIET)

    assert together(2, command(different), tmp_path / "other") == [1, 1]
    (line,) = told(tmp_path / "other", 2)
    assert "settings, network and data must be equal in all processes" in line and not (tmp_path / "other").exists()


def test_a_command_for_one_process_refuses_more(monkeypatch):
    from langevin_ext import cli

    monkeypatch.setattr(cli, "world_size", lambda: 2)
    result = CliRunner().invoke(main, ["tune", "digits"])
    assert result.exit_code == 1 and "tune: must be started without torchrun, got 2 processes" in result.stderr


def test_the_average_begins_with_the_weights_of_process_0():
    def check(rank):
        with _group.processes() as group:
            trainer = Trainer(network(rank), images(), Settings(batch_size=4))
            trainer.join(group)
            expected = EMA(network(0)).average
            assert all(torch.equal(value, expected[name]) for name, value in trainer.ema.average.items())
            assert all(torch.equal(value, expected[name]) for name, value in trainer.model.state_dict().items())

    assert together(2, check) == [0, 0]


COMMAND = "train digits --model mlp --hidden 8 --steps 4 --batch-size 9 --log-every 1 --device cpu --out"


def trains(rank, out):
    main([*COMMAND.split(), str(out)])


def test_the_command_trains_with_one_voice(tmp_path, capfd):
    assert CliRunner().invoke(main, [*COMMAND.split(), str(tmp_path / "one")]).exit_code == 0
    capfd.readouterr()
    assert together(2, trains, tmp_path / "two") == [0, 0]
    said = capfd.readouterr()
    assert said.out.count("written:") == 1 and said.out.count("mlp with") == 1 and said.err.count("4 of 4 steps") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}
    one, two = (read_log(tmp_path / name)["loss"] for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=0)


def test_process_0_tells_of_a_loss():
    def check(rank):
        with _group.processes() as group:
            assert type(group.lost("gone")) is (_group.OtherProcessFailed if rank else _group.LostProcess)
            group.wait()

    assert together(2, check) == [0, 0]
