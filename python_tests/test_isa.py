"""The native loops for earlier CPUs than this one: other processes run the tests of what is written for each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langevin_ext import _native

FOLDER = Path(__file__).resolve().parent
FILES = ("test_conv3x3.py", "test_engine_parts.py", "test_noise.py", "test_langevin_step.py")
BEST = _native.backend_info()["isa"]
EARLIER = _native.ISAS[: _native.ISAS.index(BEST)] if BEST else ()


def run(isa, *command):
    environment = {**os.environ, "LANGEVIN_ISA": isa}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not EARLIER, reason="there are no loops for an earlier CPU than this one")
@pytest.mark.parametrize("isa", EARLIER)
def test_earlier_loops(isa):
    asked = run(isa, "-c", "import langevin_ext; print(langevin_ext.backend_info()['isa'])")
    assert asked.stdout.strip() == isa
    found = run(isa, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(FOLDER / name) for name in FILES))
    assert found.returncode == 0 and " passed" in found.stdout, found.stdout[-3000:] + found.stderr[-1000:]


def test_an_unknown_level_is_refused():
    found = run("avx2", "-c", "import langevin_ext")
    assert "LANGEVIN_ISA must be one of any, v3, v4 or not set, got 'avx2'" in found.stderr
