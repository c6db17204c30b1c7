"""The checks of the emulation can fail: each fault of emulation/mutants.py, put into a kernel, is noticed."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from emulation import build, cases
from emulation.mutants import MUTANTS

from langevin_ext import _native

pytestmark = pytest.mark.skipif(_native._core is None, reason="the native core is not installed")


@pytest.fixture(scope="module")
def verdicts(emulation):
    """What the checks say of each mutant, and of the unchanged kernels under the op's name."""
    names = list(MUTANTS)
    with ThreadPoolExecutor(build.CORES) as pool:
        paths = list(pool.map(built, names))
    ops = [op for op in cases.FEW if op == "noise" or hasattr(emulation.module, op)]
    jobs = [[str(build.build()), op] for op in ops]
    jobs += [[str(path), MUTANTS[name][0]] for name, path in zip(names, paths, strict=True) if os.path.isabs(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    worker = subprocess.run(
        [sys.executable, "-m", "emulation.worker"],
        input=json.dumps(jobs),
        text=True,
        capture_output=True,
        env=environment,
        timeout=600,
    )
    assert worker.returncode == 0, worker.stderr
    said = iter(json.loads(worker.stdout.splitlines()[-1]))
    result = {op: next(said) for op in ops}
    for name, path in zip(names, paths, strict=True):
        result[name] = next(said) if os.path.isabs(path) else path
    return result


def built(name):
    """The path of the mutant's module, or why there is none."""
    _, file, old, new = MUTANTS[name]
    try:
        return str(build.build({file: [(old, new)]}))
    except build.BuildError as error:
        return f"not built: {error}"


@pytest.mark.parametrize("op", cases.FEW)
def test_unchanged_kernels_pass(verdicts, op):
    assert verdicts.get(op, "passed") == "passed"


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(verdicts, name):
    assert not verdicts[name].startswith("not built"), verdicts[name]
    assert verdicts[name] != "passed", f"nothing noticed: {name}"
