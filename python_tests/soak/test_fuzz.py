"""Broken files and names end in one sentence: no other exception, no crash, no hang, no large allocation."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
SCRIPT = Path(__file__).with_name("fuzz.py")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))  # for each parser; the recorded runs had 600


def fuzz(*arguments):
    """What the script counts; it has little memory, and one arena for it."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    return ast.literal_eval(done.stdout)


def test_what_once_was_a_failure():
    assert fuzz("found") >= 20


def test_broken_input_is_refused():
    assert fuzz("rounds", 12, 1) > 150


PARSERS = [
    "checkpoint",
    "checkpoint with a true checksum",
    "sampling run",
    "sampling run with a true checksum",
    "npz",
    "npy",
    "vectors",
    "npy header",
    "zip",
    "zip members",
    "idx",
    "cifar",
    "mask",
    "samples",
    "samples to merge",
    "official checkpoint",
    "inception",
    "statistics",
    "provenance",
    "settings to merge",
    "log",
    "selection",
    "status",
    "scheme names",
]


@pytest.mark.soak
@pytest.mark.parametrize("name", PARSERS)
def test_much_broken_input_is_refused(name, figures):
    began = time.monotonic()
    tried = fuzz("for", SECONDS, int(time.time()) % 10**6 * 1000, name)
    figures[f"fuzzed: {name}"] = {"inputs": tried, "seconds": round(time.monotonic() - began), "failures": 0}
