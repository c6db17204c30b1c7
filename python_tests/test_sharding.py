"""Samples in shards: the same for any number of processes, complete after any loss, and never whole in memory."""

import json
import os
import shutil
import signal
import tracemalloc

import numpy as np
import pytest
import torch
from several import command, together, told

import langevin_ext
from langevin_ext import sharding
from langevin_ext.scores import GaussianField
from langevin_ext.sharding import arrays, folder, run, settings

SETTINGS = {"n_steps_each": 3, "eps": 1e-3, "seed": 5, "first": 100, "progress": False}
WRITTEN = {"samples.npz", "settings.json", "status.json"}
SHAPE, N, SIZE = (1, 4, 4), 23, 4


def field():
    """An exact score."""
    return GaussianField(SHAPE, sigmas=[1.0, 0.3, 0.1])


def exact(rank, out, n=N, **options):
    sharding.sample_shards(field(), "annealed", n, out=out, **{"shard_size": SIZE, **SETTINGS, **options})


def network(rank, out):
    sharding.sample_shards(
        langevin_ext.load("digits"),
        "annealed",
        9,
        out=out,
        shard_size=2,
        **{**SETTINGS, "eps": 1e-4, "n_steps_each": 1},
    )


def images(out):
    with np.load(out / "samples.npz", allow_pickle=False) as file:
        assert set(file.files) == {"images", "seed", "first"} and file["seed"] == 5
        return torch.from_numpy(file["images"])


def files(out):
    return {path.name for path in out.iterdir()}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_processes_draws_the_same_samples(tmp_path, size):
    assert together(size, exact, tmp_path / "out") == [0] * size
    assert torch.equal(images(tmp_path / "out"), langevin_ext.sample(field(), n=N, **SETTINGS))
    assert files(tmp_path / "out") == WRITTEN


def test_a_network_draws_the_same_samples(tmp_path):
    assert together(3, network, tmp_path / "three") == [0, 0, 0]
    network(0, tmp_path / "one")
    assert torch.equal(images(tmp_path / "one"), images(tmp_path / "three"))  # the shards are the same batches
    whole = langevin_ext.sample(langevin_ext.load("digits"), n=9, **{**SETTINGS, "eps": 1e-4, "n_steps_each": 1})
    torch.testing.assert_close(images(tmp_path / "three"), whole, rtol=0, atol=1e-5)


def test_settings_and_diagnostics_are_those_of_one_run(tmp_path):
    exact(0, tmp_path / "out")
    _, info = langevin_ext.sample(field(), n=N, return_info=True, **SETTINGS)
    written = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert {name: written[name] for name in ("n", "first", "seed", "eps", "scheme", "sigmas", "shard_size")} == {
        **{name: info["settings"][name] for name in ("n", "first", "seed", "eps", "scheme", "sigmas")},
        "shard_size": SIZE,
    }
    assert written["evaluations"] == info["evaluations"] and written["seconds"] > 0
    for ours, theirs in zip(written["diagnostics"], info["diagnostics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


class Dies:
    """The exact score, whose process is killed in its second shard if it is process 1."""

    sigmas, shape = [1.0, 0.3, 0.1], SHAPE

    def __init__(self, mortal=True):
        self._field, self._calls, self._mortal = field(), 0, mortal

    def __call__(self, x, level):
        self._calls += 1
        if (
            self._mortal and os.environ.get("RANK") == "1" and self._calls > 15
        ):  # 3 levels of 3 steps and the last one are a shard
            os.kill(os.getpid(), signal.SIGKILL)
        return self._field(x, level)


def mortal(rank, out):
    sharding.sample_shards(Dies(), "annealed", N, out=out, shard_size=SIZE, **SETTINGS)


def immortal(rank, out):
    sharding.sample_shards(Dies(mortal=False), "annealed", N, out=out, shard_size=SIZE, **SETTINGS)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_second_call_draws_exactly_what_a_lost_process_has_left(tmp_path, monkeypatch, size):
    out = tmp_path / "out"
    assert together(3, command(mortal), out) == [1, -signal.SIGKILL, 1]
    (line,) = told(out, 3)
    # process 2 may be at its last shard when process 0 notices
    assert "4 samples (116 to 119) are missing" in line or "7 samples (116 to 122) are missing" in line
    assert "the same call draws exactly these" in line
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("shard-*")}
    assert len(before) == 5
    monkeypatch.setattr(run, "_merge", lambda *_: {})
    assert together(size, immortal, out) == [0] * size
    after = {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("shard-*")}
    assert len(after) == 6 and before.items() <= after.items()
    assert not list((out / "shards").glob("run-*"))
    monkeypatch.undo()
    immortal(0, out)
    assert torch.equal(images(out), langevin_ext.sample(field(), n=N, **SETTINGS))


def test_a_shard_is_continued_where_it_stopped(tmp_path):
    calls = []

    class Stops(Dies):
        def __call__(self, x, level):
            calls.append(len(x))
            if len(calls) == 17:
                raise KeyboardInterrupt
            return self._field(x, level)

    with pytest.raises(KeyboardInterrupt):
        sharding.sample_shards(Stops(), "annealed", N, out=tmp_path / "out", shard_size=SIZE, **SETTINGS)
    assert len(list((tmp_path / "out" / "shards").glob("run-*"))) == 1
    sharding.sample_shards(Stops(), "annealed", N, out=tmp_path / "out", shard_size=SIZE, **SETTINGS)
    assert len(calls) < 6 * 10 + 17 - 10  # the first shard is not drawn again
    assert torch.equal(images(tmp_path / "out"), langevin_ext.sample(field(), n=N, **SETTINGS))


def test_known_pixels_and_starts_of_each_sample_go_with_it(tmp_path):
    known = langevin_ext.noise.uniform((N, *SHAPE), 3)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[:, :2] = True
    options = {"known": known, "mask": mask, "init": known.flip(0)}
    exact(0, tmp_path / "out", **options)
    assert torch.equal(images(tmp_path / "out"), langevin_ext.sample(field(), n=N, **SETTINGS, **options))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seed": 6}, "seed must be that of the run in .*, 5, got 6"),
        ({"n": 24}, "n must be that of the run"),
        ({"shard_size": 5}, "shard_size must be that of the run in .*, 4, got 5"),
        ({"eps": 2e-3}, "eps must be that of the run in .*; use another folder or delete it"),
    ],
)
def test_other_settings_are_refused(started, options, message):
    with pytest.raises(ValueError, match=message):
        exact(0, started, **options)
    assert len(list((started / "shards").glob("shard-*"))) == 2


@pytest.fixture
def started(tmp_path):
    """A run of which two shards are done."""
    shards = sharding.run.Shards
    out, write = tmp_path / "out", shards.write
    with pytest.MonkeyPatch.context() as patch:

        def stop(self, low, high, x, info):
            write(self, low, high, x, info)
            if len(self.missing()) == 4:
                raise KeyboardInterrupt

        patch.setattr(shards, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            exact(0, out)
    return out


def test_the_size_of_a_shard_is_that_of_the_run(started):
    sharding.sample_shards(field(), "annealed", N, out=started, batch_size=7, **SETTINGS)
    assert torch.equal(images(started), langevin_ext.sample(field(), n=N, **SETTINGS))


def test_damaged_and_foreign_shards_are_refused_by_name(started):
    path = sorted((started / "shards").glob("shard-*"))[1]
    whole = path.read_bytes()
    for at in (whole.index(b"NUMPY") + 200, whole.index(b'{"settings_hash') + 30):  # a pixel, the description
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{path.name} is damaged, delete it and call again to draw"):
                exact(0, started)
            assert not (started / "samples.npz").exists()
    other = started.with_name("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder.Shards, "remove", lambda self: None)
        exact(0, other, seed=6)
    shutil.copy(other / "shards" / path.name, path)
    with pytest.raises(ValueError, match="must be of the run in .*, got one of another; delete it"):
        exact(0, started)
    path.unlink()
    exact(0, started)  # what was deleted is drawn again
    assert torch.equal(images(started), langevin_ext.sample(field(), n=N, **SETTINGS))


def test_wrong_arguments_and_folders(tmp_path):
    with pytest.raises(ValueError, match="argument callback is for `sample` alone"):
        exact(0, tmp_path / "out", callback=print)
    with pytest.raises(ValueError, match="shard_size must be an integer of at least 1, got 0"):
        exact(0, tmp_path / "out", shard_size=0)
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        exact(0, tmp_path)
    with pytest.raises(ValueError, match="out must be a folder, got the file"):
        exact(0, tmp_path / "precious")
    (tmp_path / "bad" / "shards").mkdir(parents=True)
    (tmp_path / "bad" / "shards" / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json must be that of a run in shards"):
        exact(0, tmp_path / "bad")


def test_the_default_size():
    assert sharding.default_size((3, 32, 32)) == 1000 and sharding.default_size((3, 256, 256)) == 21
    assert sharding.default_size((3, 2048, 2048)) == 1 and sharding.default_size((1, 8, 8), 5000) == 5000


def test_merging_holds_a_few_megabytes_whatever_the_number(tmp_path):
    x = np.zeros((3000, 1, 32, 32), np.float32)  # 12 MB in a file
    x[:, 0, 0, 0] = np.arange(3000)
    for i in range(5):
        np.savez(tmp_path / f"{i}.npz", images=x + 3000 * i)
    tracemalloc.start()
    parts = [arrays.Images(tmp_path / f"{i}.npz") for i in range(5)]
    assert arrays.write_images(tmp_path / "all.npz", parts, seed=1) == (15000, 1, 32, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * arrays.CHUNK  # of 61 MB
    with np.load(tmp_path / "all.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"][:, 0, 0, 0], np.arange(15000)) and file["seed"] == 1
    assert torch.equal(arrays.Images(tmp_path / "all.npz").head(2)[:, 0, 0, 0], torch.tensor([0.0, 1.0]))


def test_spans():
    assert settings.spans([(4, 8), (0, 4), (9, 10)]) == "0 to 7, 9"
    assert settings.spans([(i, i + 1) for i in range(0, 12, 2)]) == "0, 2, 4, 6 and 2 more ranges"
