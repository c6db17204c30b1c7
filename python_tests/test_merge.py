"""The command in shards, and the samples of unconnected machines as those of one."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from several import needs_processes

from langevin_ext import sharding
from langevin_ext.cli import main

WRITTEN = {"samples.npz", "settings.json"}


def files(out):
    return {path.name for path in out.iterdir()}


def cli(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


OPTIONS = ("--model", "digits", "--steps-each", 1, "--eps", 1e-4, "--device", "cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A run of 12 in shards of 5, and its two halves as of two machines, one of them in shards too."""
    base = tmp_path_factory.mktemp("parts")
    whole = cli("sample", *OPTIONS, "-n", 12, "--shard-size", 5, "--out", base / "whole")
    assert whole.exit_code == 0 and "12 samples in" in whole.output, whole.output
    assert cli("sample", *OPTIONS, "-n", 7, "--shard-size", 3, "--out", base / "a").exit_code == 0
    assert cli("sample", *OPTIONS, "-n", 5, "--first", 7, "--out", base / "b").exit_code == 0
    return base


def test_the_command_writes_what_a_run_in_one_writes(parts):
    assert cli("sample", *OPTIONS, "-n", 12, "--out", parts / "one").exit_code == 0
    assert files(parts / "whole") == files(parts / "one") == WRITTEN | {"grid.png", "trajectory.png", "status.json"}
    facts = [json.loads((parts / name / "settings.json").read_text()) for name in ("whole", "one")]
    assert facts[0].keys() - {"shard_size"} == facts[1].keys()
    one, whole = (np.load(parts / name / "samples.npz")["images"] for name in ("one", "whole"))
    assert np.abs(one - whole).max() <= 1e-5
    again = cli("sample", *OPTIONS, "-n", 12, "--shard-size", 5, "--out", parts / "whole")
    assert again.exit_code == 1 and "must be a new or empty folder" in again.stderr


def test_the_plan_tells_the_shards(tmp_path):
    result = cli("sample", *OPTIONS, "-n", 25, "--shard-size", 10, "--out", tmp_path / "out", "--dry-run")
    assert "3 shards of at most 10 samples" in result.output and not (tmp_path / "out").exists()


def test_merge_puts_unconnected_machines_together(parts, tmp_path):
    result = cli("merge", parts / "b", parts / "a", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "12 samples, 0 to 11, of 2 folders" in result.output, result.output
    assert files(tmp_path / "out") == WRITTEN | {"grid.png"}
    merged, whole = (np.load(path / "samples.npz") for path in (tmp_path / "out", parts / "whole"))
    assert np.abs(merged["images"] - whole["images"]).max() <= 1e-5 and merged["first"] == 0
    facts, expected = (json.loads((path / "settings.json").read_text()) for path in (tmp_path / "out", parts / "whole"))
    assert facts["n"] == 12 and [part["first"] for part in facts["merged"]] == [0, 7]
    for ours, theirs in zip(facts["diagnostics"], expected["diagnostics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    sharding.merge([tmp_path / "out"], tmp_path / "again")  # a merged run is a run
    assert (tmp_path / "again" / "samples.npz").read_bytes() == (tmp_path / "out" / "samples.npz").read_bytes()


def copied(source, target, **changed):
    shutil.copytree(source, target)
    path = target / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return target


def test_merge_refuses_what_does_not_fit(parts, tmp_path):
    def refused(message, *folders):
        result = cli("merge", *folders, "--out", tmp_path / "out")
        assert result.exit_code == 1 and not (tmp_path / "out").exists()
        assert message in result.stderr.replace(str(tmp_path), "").replace(str(parts), ""), result.stderr

    a, b = parts / "a", parts / "b"
    refused("must not overlap, got samples 7 to 11 in both /whole and /b", parts / "whole", b)
    refused("must not overlap, got samples 0 to 6 in both /a and /a", a, a)
    gap = copied(b, tmp_path / "gap", first=9)
    refused("no gap, got none with the samples 7 to 8; draw them with --first 7 -n 2", a, gap)
    refused(
        "eps must be equal in all folders, got 0.0001 in /a and 0.5 in /eps", a, copied(b, tmp_path / "eps", eps=0.5)
    )
    other = copied(b, tmp_path / "other", model={"sha256": "another"})
    refused("model must be equal in all folders, got ['", a, other)
    refused("must hold the 6 samples of its settings, got 5", a, copied(b, tmp_path / "n", n=6))
    refused("must hold the settings of a run", a, copied(b, tmp_path / "lacks", diagnostics=3))
    refused("file must exist", a, tmp_path / "nowhere")
    progress = copied(b, tmp_path / "progress")
    (progress / "shards").mkdir()
    refused("/progress must be a finished run, got one in progress", a, progress)
    flipped = copied(b, tmp_path / "flipped")
    content = bytearray((flipped / "samples.npz").read_bytes())
    content[700] ^= 8
    (flipped / "samples.npz").write_bytes(content)
    result = cli("merge", a, flipped, "--out", tmp_path / "out")
    assert "samples.npz is damaged" in result.stderr and not (tmp_path / "out" / "samples.npz").exists()
    occupied = cli("merge", a, b, "--out", parts)
    assert "out must be a new or empty folder" in occupied.stderr


def test_torchrun_samples(parts, tmp_path):
    needs_processes()
    """The command as a user gives it."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = [*OPTIONS, "-n", 12, "--shard-size", 5, "--out", tmp_path / "out"]
    done = subprocess.run(
        [*torchrun, "langevin_ext", "sample", *map(str, arguments)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 samples in") == 1 and "12 of 12 samples" in done.stderr
    assert np.array_equal(*(np.load(path / "samples.npz")["images"] for path in (tmp_path / "out", parts / "whole")))
