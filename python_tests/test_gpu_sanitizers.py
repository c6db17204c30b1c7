"""The sanitizers' section of the GPU report, with a script in the place of compute-sanitizer."""

import json
import pathlib
import sys
import time

import pytest

from langevin_ext import ops

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu_common  # noqa: E402
import gpu_sanitize  # noqa: E402
import gpu_sanitizers  # noqa: E402


def sanitize(tmp_path, monkeypatch, script, seconds=60.0):
    """The section with this script in the place of compute-sanitizer."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(gpu_sanitizers, "find", lambda: str(program))
    result = gpu_common.Result(tmp_path / "sanitizers.json")
    gpu_sanitizers.sanitizers(result, gpu_common.Setting("cuda", True, tmp_path, ends=time.monotonic() + seconds))
    return result


CLEAN = 'echo "144 calls"; echo "========= ERROR SUMMARY: 0 errors"'


def test_sanitizers_that_find_nothing(tmp_path, monkeypatch):
    said = f'echo "$2 $PYTORCH_NO_CUDA_MEMORY_CACHING" >> {tmp_path}/calls; {CLEAN}'
    result = sanitize(tmp_path, monkeypatch, said)
    assert sorted(row["what"] for row in result.rows) == ["memcheck", "racecheck", "synccheck"]
    assert all(row["calls"] == 144 and row["summary"] == "0 errors" for row in result.rows)
    assert sorted((tmp_path / "calls").read_text().split()) == ["1", "1", "1", "memcheck", "racecheck", "synccheck"]


@pytest.mark.parametrize(
    "end, wrong",
    [
        ("exit 86", "it found errors, exit status 86"),
        ("exit 1", "the calls did not run to the end, exit status 1"),
        ('echo "========= Error: Race reported"; exec sleep 9', "it found errors, it did not end in time"),
    ],
)
def test_a_sanitizer_that_finds_something(tmp_path, monkeypatch, end, wrong):
    with pytest.raises(gpu_common.Failed, match="^racecheck did not pass$"):
        seconds = 2.0 if "sleep" in end else 60.0
        sanitize(tmp_path, monkeypatch, f'{CLEAN}; if [ "$2" = racecheck ]; then {end}; fi', seconds)
    rows = json.loads((tmp_path / "sanitizers.json").read_text())["rows"]
    assert {row["what"]: row.get("wrong") for row in rows} == {"memcheck": None, "racecheck": wrong, "synccheck": None}


def test_a_sanitizer_that_the_time_is_too_short_for(tmp_path, monkeypatch):
    began = time.monotonic()
    with pytest.raises(gpu_common.Skipped, match="^memcheck did not end in time$"):
        sanitize(tmp_path, monkeypatch, f'{CLEAN}; if [ "$2" = memcheck ]; then exec sleep 60; fi', 2.0)
    assert time.monotonic() - began < 20
    rows = json.loads((tmp_path / "sanitizers.json").read_text())["rows"]
    assert [row["what"] for row in rows][2] == "memcheck"  # each as it ended
    assert [row.get("why") for row in rows] == [None, None, "it did not end in time"]


def test_a_sanitizer_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_sanitizers, "find", lambda: None)
    with pytest.raises(gpu_common.Skipped, match="compute-sanitizer is not installed"):
        gpu_sanitizers.sanitizers(gpu_common.Result(tmp_path / "x"), gpu_common.Setting("cuda", True, tmp_path))


def test_the_sanitizers_see_every_op(monkeypatch):
    called = set()

    def recorded(name, function):
        return lambda *a, **k: (called.add(name), function(*a, **k))[1]

    for name in ops.__all__:
        monkeypatch.setattr(ops, name, recorded(name, getattr(ops, name)))
    assert gpu_sanitize.main("cpu") > 100
    assert called == set(ops.__all__) - {"conv3x3"}  # which has no CUDA kernel


def test_a_sanitizer_beside_nvcc(tmp_path, monkeypatch):
    (tmp_path / "toolkit").mkdir()
    (tmp_path / "path").mkdir()
    for name in ("nvcc", "compute-sanitizer"):
        (tmp_path / "toolkit" / name).touch(0o755)
    (tmp_path / "path" / "nvcc").symlink_to(tmp_path / "toolkit" / "nvcc")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    found = gpu_sanitizers.find()
    assert found in (str(tmp_path / "toolkit" / "compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer")
    (tmp_path / "path" / "nvcc").unlink()
    assert gpu_sanitizers.find() != str(tmp_path / "toolkit" / "compute-sanitizer")
