import datetime
import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch

# A run that was started in the background ignores Ctrl-C, and its tests of it would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--figures", metavar="FILE", help="JSON file that keeps what the tests marked soak count")


@pytest.fixture(scope="session")
def figures(request):
    """A dict of what the long tests count, kept with date and commit in the file of --figures.

    What was counted in a shorter time does not replace what was counted in a longer one.
    """
    found: dict = {}
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]  # dirty: with changes
    commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    yield found
    path = request.config.getoption("--figures")
    if path is None or not found:
        return
    known = json.loads(Path(path).read_text()) if Path(path).exists() else {}
    stamp = {"date": datetime.date.today().isoformat(), "commit": commit, "torch": torch.__version__}
    for name, values in found.items():
        if values.get("seconds", 0) >= 0.95 * known.get(name, {}).get("seconds", 0):
            known[name] = {**values, **stamp}
    Path(path).write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def pytest_collection_modifyitems(items):
    from langevin_ext import backend_info

    reason = backend_info()["cuda_reason"]
    for item in items:
        if reason and "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=["native", "reference"])
def backend(request, monkeypatch):
    """Runs a test on the native core and again on plain torch."""
    from langevin_ext import _native

    if request.param == "reference":
        monkeypatch.setattr(_native, "core", lambda device: None)
    elif _native.core(torch.device("cpu")) is None:
        pytest.skip("the native core is not installed")
    return request.param


@pytest.fixture(scope="session")
def emulation():
    """The CUDA kernels' block logic on the CPU; see emulation/emulate.h for what that covers."""
    from emulation import build, harness

    if build.why_not():
        pytest.skip(build.why_not())
    return harness.Emulation(build.load(build.build()))


@pytest.fixture
def emulated(emulation):
    """Runs a test with the emulated CUDA kernels in the place of the native core."""
    with emulation.active():
        yield emulation
