import signal

import pytest
import torch

# A run that was started in the background ignores Ctrl-C, and its tests of it would wait for nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
