"""Random calls of the ops end in the right answer or a Python exception, in a process of their own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("op_calls.py")


def calls(number, first):
    """{"right": count, "refused": count}."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(SCRIPT), str(number), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    return ast.literal_eval(done.stdout)


def test_random_calls():
    counts = calls(1000, 0)
    assert sum(counts.values()) == 1000 and counts["right"] > 700 and counts["refused"] > 50


@pytest.mark.soak
def test_many_random_calls(figures):
    counts = calls(100_000, 1_000_000)
    assert sum(counts.values()) == 100_000
    figures["random calls of the ops"] = counts
