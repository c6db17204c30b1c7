"""What the core does when a call of the CUDA runtime fails, on a runtime that is emulation/cuda_runtime.h."""

import ctypes

import pytest
from emulation import build

OUT_OF_MEMORY, INVALID_DEVICE_FUNCTION, NO_KERNEL_IMAGE = 2, 98, 209


@pytest.fixture(scope="module")
def ask():
    if build.why_not():
        pytest.skip(build.why_not())
    library = ctypes.CDLL(str(build.build_library("status.cpp")))
    library.ask.restype = ctypes.c_char_p

    def ask(what, device, failing="", failure=OUT_OF_MEMORY, calls_before=0):
        """(the answer or what was thrown, the error that sticks, the current device)"""
        left = (ctypes.c_int * 2)()
        said = library.ask(what.encode(), device, failing.encode(), failure, calls_before, left)
        return said.decode(), *left

    return ask


def test_a_device_that_cannot_be_used_leaves_no_error(ask):
    assert ask("DeviceGuard", 1) == ("on device 1", 0, 0)
    for call in ("cudaGetDevice", "cudaSetDevice"):
        assert ask("DeviceGuard", 1, call) == (f"threw {call}: it failed", 0, 0)


def test_a_device_that_cannot_be_put_back_leaves_no_error(ask):
    assert ask("DeviceGuard", 1, "cudaSetDevice", calls_before=1) == ("on device 1", 0, 1)


@pytest.mark.parametrize("call", ["cudaGetDeviceCount", "cudaGetDevice", "cudaSetDevice", "cudaFuncGetAttributes"])
def test_why_no_kernel_runs(ask, call):
    assert ask("why_no_kernel_runs", 1) == ("", 0, 0)
    assert ask("why_no_kernel_runs", 1, call) == (f"{call}: it failed", 0, 0)


def test_there_is_no_such_device(ask):
    assert ask("why_no_kernel_runs", 2) == ("no CUDA device", 0, 0)


@pytest.mark.parametrize("kernels_before", [0, 1])
def test_without_an_image_that_knows_clusters_there_is_no_one_pass_form(ask, kernels_before):
    assert ask("cluster_limit", 0) == ("232448", 0, 0)
    for missing in (INVALID_DEVICE_FUNCTION, NO_KERNEL_IMAGE):
        assert ask("cluster_limit", 0, "cudaFuncGetAttributes", missing, kernels_before) == ("0", 0, 0)
    for call in ("cudaDeviceGetAttribute", "cudaFuncGetAttributes", "cudaFuncSetAttribute"):
        assert ask("cluster_limit", 0, call, OUT_OF_MEMORY, kernels_before) == (f"threw {call}: it failed", 0, 0)
