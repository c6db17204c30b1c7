"""One process at a time in a folder, or on a file."""

import errno
import fcntl
import multiprocessing
import re
import time

import pytest
import torch
from click.testing import CliRunner
from linear_score import small

from langevin_ext import _lock, cli, sample, scores, sharding
from langevin_ext.experiments.run import table

FIELD = scores.GaussianField((1, 3, 4))
RUN = {"n": 5, "seed": 3, "batch_size": 2, "n_steps_each": 4, "progress": False}
IN_USE = r"must not be in use, got .*run, on which process \d+ on \S+ is at work; wait for its end or give another$"


def hold(folder, ready):
    with _lock.locked(folder, "train: out"):
        ready.set()
        time.sleep(100)


@pytest.fixture
def other(tmp_path):
    """Another process at work in a folder."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    (tmp_path / "run").mkdir()
    process = context.Process(target=hold, args=(tmp_path / "run", ready), daemon=True)
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join(60)


def test_two_processes_in_one_folder(tmp_path, other):
    with pytest.raises(ValueError) as caught:
        small(tmp_path / "run", 3)
    assert re.fullmatch(
        rf"train: out must not be in use, got .*run, on which process {other.pid} on \S+ is at work; "
        "wait for its end or give another",
        str(caught.value),
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    other.kill()
    other.join(60)
    assert (tmp_path / "run" / ".lock").exists()  # what a killed process leaves locks nothing
    small(tmp_path / "run", 3)
    assert not (tmp_path / "run" / ".lock").exists()


def test_the_lock_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="mine"), _lock.locked(tmp_path, "train: out"):
            with pytest.raises(ValueError, match="^again must not be in use"), _lock.locked(tmp_path, "again"):
                pass
            raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_samples_in_use(tmp_path, other):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=f"^sample: out {IN_USE}"):
        sharding.sample_shards(FIELD, out=out, shard_size=2, **RUN)
    with pytest.raises(ValueError, match=f"^table: argument out {IN_USE}"):
        fields = [scores.GaussianField((1, size, size)) for size in (4, 8)]
        table(2, *fields, n=2, samples=2, n_steps_each=1, out=out, progress=False)
    for command in ("sample --model digits -n 2 --steps-each 1", "tune rings:50"):
        done = CliRunner().invoke(cli.main, [*command.split(), "--out", str(out)])
        assert done.exit_code == 1 and re.search(f"--out {IN_USE}", done.output.strip()), done.output
    assert [path.name for path in out.iterdir()] == [".lock"]
    other.kill()
    other.join(60)
    sharding.sample_shards(FIELD, out=out, shard_size=2, **RUN)
    assert sorted(path.name for path in out.iterdir()) == ["samples.npz", "settings.json", "status.json"]


def test_a_command_gives_its_folder_back(tmp_path):
    for _ in range(2):  # the second call finds the lock free, and other files
        done = CliRunner().invoke(
            cli.main, ["sample", "--model", "digits", "-n", "2", "--steps-each", "1", "--out", str(tmp_path / "run")]
        )
        assert not (tmp_path / "run" / ".lock").exists()
    assert done.exit_code == 1 and "holds other files" in done.output


def test_a_checkpoint_of_sampling_in_use(tmp_path):
    """Also by a run of the same process; a complete one is only read."""

    def again(now):
        with pytest.raises(ValueError, match=f"^sample: argument checkpoint {IN_USE}"):
            sample(FIELD, checkpoint=tmp_path / "run", **RUN)

    x = sample(FIELD, checkpoint=tmp_path / "run", callback=again, **RUN)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with _lock.locked(tmp_path / "run", "other"):
        assert torch.equal(sample(FIELD, checkpoint=tmp_path / "run", **RUN), x)


def test_a_lock_whose_file_was_deleted_in_between(tmp_path, monkeypatch):
    """By the process that held it, and ended between our opening of the file and our lock on it."""
    lock, flock, calls = tmp_path / ".lock", fcntl.flock, []

    def late(handle, how):
        calls.append(handle)
        if len(calls) == 1:
            lock.unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with _lock.locked(tmp_path, "one"):
        assert len(calls) == 2 and lock.exists()
        with pytest.raises(ValueError, match="^other must not be in use"), _lock.locked(tmp_path, "other"):
            pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="^train: out: no lock can be had on .*; use it from one process alone$"):
        small(tmp_path / "run", 3)
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        small(tmp_path / "run", 6)
