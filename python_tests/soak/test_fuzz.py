"""Broken files and names end in one sentence: no other exception, no crash, no hang, no large allocation."""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
SCRIPT, COVERAGE = (Path(__file__).with_name(name) for name in ("fuzz.py", "fuzz_coverage.py"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))  # for each parser; the recorded runs had 600


def fuzz(*arguments, script=SCRIPT):
    """What the script prints, and says on stderr; it has little memory, and one arena for it."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=3600)
    log = "\n".join(line for line in done.stderr.splitlines() if "Instrumenting" not in line)
    assert done.returncode == 0, f"exit status {done.returncode}: {log[-6000:]}"
    return done.stdout, log


def count(*arguments):
    """The inputs that were tried."""
    return ast.literal_eval(fuzz(*arguments)[0])


def test_what_once_was_a_failure():
    assert count("found") >= 20


def test_broken_input_is_refused():
    assert count("rounds", 12, 1) > 150


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
    tried = count("for", SECONDS, int(time.time()) % 10**6 * 1000, name)
    figures[f"fuzzed: {name}"] = {"inputs": tried, "seconds": round(time.monotonic() - began), "failures": 0}


@pytest.mark.soak
@pytest.mark.parametrize("name", ["checkpoint", "checkpoint with a true checksum", "npz", "zip", "idx", "scheme names"])
def test_input_that_reaches_new_code_is_refused(name, figures):
    pytest.importorskip("atheris")
    log = fuzz(round(SECONDS), int(time.time()) % 10**6, name, script=COVERAGE)[1]
    tried, seconds = map(int, re.search(r"Done (\d+) runs in (\d+) second", log).groups())
    reached = int(re.findall(r"cov: (\d+)", log)[-1])
    assert tried > 10 * SECONDS and reached > 40, log[-3000:]  # where a checksum is false nothing more is read
    figures[f"fuzzed by coverage: {name}"] = {"inputs": tried, "seconds": seconds, "branches": reached, "failures": 0}
