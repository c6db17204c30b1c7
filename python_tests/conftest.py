import pytest
import torch


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
