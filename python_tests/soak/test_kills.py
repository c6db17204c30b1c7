"""Runs that are killed at random moments, and while they write, end bit-equal to undisturbed ones."""

import hashlib
import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import kill_runs
import numpy as np
import pytest
from safetensors.torch import load_file

CONTEXT = multiprocessing.get_context("forkserver")
LIMIT = 120  # seconds that a run may take before it counts as hanging


@pytest.fixture(scope="module", autouse=True)
def server():
    """Imports once what the children need, so that one starts within milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))  # it knows no sys.path
        CONTEXT.set_forkserver_preload(["kill_runs"])
        assert finish(kill_runs.nothing) == 0


def start(target, *arguments):
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def finish(target, *arguments):
    """Lets a run go to its end, or to where it kills itself; returns its exit status."""
    process = start(target, *arguments)
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"{target.__name__} did not end within {LIMIT} s")
    return process.exitcode


def trained(folder):
    """All tensors of a training run, and its log without the seconds."""
    files = ("checkpoint.safetensors", "model.safetensors")
    digest = {
        f"{name} {key}": value.numpy().tobytes() for name in files for key, value in load_file(folder / name).items()
    }
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return digest | {"log": [{**line, "seconds": 0} for line in lines]}


def sampled(folder):
    """The images of a sampling run, and what its settings say of the run."""
    with np.load(folder / "samples.npz") as file:
        images = {name: file[name].tobytes() for name in file.files}
    settings = json.loads((folder / "settings.json").read_text())
    pictures = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("grid.png", "trajectory.png")]
    return images | {"settings": [settings[name] for name in ("evaluations", "diagnostics", "seed")], "png": pictures}


def tabled(folder):
    """The images of every scheme of a table, and its distances."""
    samples = {}
    for path in sorted((folder / "samples").iterdir()):
        with np.load(path) as file:
            samples[path.name] = file["images"].tobytes()
    rows = json.loads((folder / "table.json").read_text())["rows"]
    return samples | {"distances": [[row["scheme"], row["distance"], row["deviation"]] for row in rows]}


RUNS = {
    "training": (kill_runs.train, trained),
    "sampling": (kill_runs.sample, sampled),
    "table": (kill_runs.table, tabled),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """name -> (what a run that is left alone gives, its seconds), made at most once."""
    made = {}

    def give(name):
        if name not in made:
            run, read = RUNS[name]
            folder = tmp_path_factory.mktemp("whole") / "run"
            began = time.monotonic()
            assert finish(run, str(folder)) == 0
            made[name] = read(folder), time.monotonic() - began
        return made[name]

    return give


def is_done(folder):
    """Whether only a run that is complete leaves the folder like this."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return "settings.json" in names and "run.safetensors" not in names or "table.json" in names and "parts" not in names


def survive(name, kills, seed, tmp_path, undisturbed):
    """Kills a run so many times at random moments; returns figures."""
    (run, read), (expected, seconds) = RUNS[name], undisturbed(name)
    moments, count, ended, delays = random.Random(seed), 0, 0, []
    while count < kills:
        folder = tmp_path / f"run{ended}"
        while count < kills:
            process, delay = start(run, str(folder)), moments.uniform(0, seconds)
            process.join(delay)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            count += 1
            delays.append(delay)
            if is_done(folder):
                break
        if not is_done(folder):
            assert finish(run, str(folder)) == 0
        assert read(folder) == expected
        assert not list(folder.glob(".*.tmp")) and not (folder / ".lock").exists()
        ended += 1
    return {"kills": count, "runs": ended, "all bit-equal": True, "seconds of an undisturbed run": round(seconds, 2)}


@pytest.mark.parametrize("name, kills", [("training", 2), ("sampling", 2), ("table", 1)])
def test_survives_kills(name, kills, tmp_path, undisturbed):
    survive(name, kills, 1, tmp_path, undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("name, kills", [("training", 30), ("sampling", 30), ("table", 10)])
def test_survives_many_kills(name, kills, tmp_path, undisturbed, figures):
    figures[f"killed at random: {name}"] = survive(name, kills, 2, tmp_path, undisturbed)


def survive_in_writing(name, moment, number, tmp_path, undisturbed):
    (run, read), (expected, _) = RUNS[name], undisturbed(name)
    folder = tmp_path / "run"
    status = finish(kill_runs.killed_while_writing, run, str(folder), moment, number)
    assert status == -9, f"the run was to be killed {moment} of file {number}, it ended with {status}"
    if not is_done(folder):
        assert finish(run, str(folder)) == 0
    assert read(folder) == expected
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize(
    "name, moment, number",
    [
        ("training", "in the middle", 1),
        ("training", "in the middle", 60),
        ("training", "before the rename", 3),
        ("sampling", "in the middle", 12),
    ],
)
def test_survives_kills_in_writing(name, moment, number, tmp_path, undisturbed):
    survive_in_writing(name, moment, number, tmp_path, undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["training", "sampling"])
def test_survives_many_kills_in_writing(name, tmp_path, undisturbed, figures):
    cases = [(moment, number) for moment in kill_runs.MOMENTS for number in (1, 2, 7, 16, 31)]
    for index, (moment, number) in enumerate(cases):
        survive_in_writing(name, moment, number, tmp_path / str(index), undisturbed)
    figures[f"killed while writing: {name}"] = {
        "kills": len(cases),
        "moments": kill_runs.MOMENTS,
        "all bit-equal": True,
    }
