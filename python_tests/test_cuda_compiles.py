"""What ptxas said of every CUDA kernel when the core was built: no spills, no stack, registers within bounds.

setup.py keeps nvcc's output beside each object; its warnings already are errors, or there would be no core to test.
"""

import re
import sysconfig
from pathlib import Path

import pytest

from langevin_ext import backend_info

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / f"{sysconfig.get_config_var('EXT_SUFFIX').split('.')[1]}-cuda"
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
# A multiprocessor has 65536 registers: 64 a thread leave room for 4 blocks of 256 threads, or 2 of a cluster's 512.
USUAL_LIMIT = 64
LIMITS = {"device.cu": 16, "noise.cu": 48}
POOL_LIMIT = 80  # 3 blocks, of the norm's kernel that pools
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def kernels(source):
    info = backend_info()
    if not info["cuda_built"]:
        pytest.skip(f"no CUDA kernel was compiled: {info['cuda_built_reason']}")
    log = BUILD / f"cuda-{source.name}.o.log"
    if not log.is_file():
        pytest.skip("the core was not built in this tree")
    return [found.groupdict() for found in KERNEL.finditer(log.read_text())]


def archs_of(source):
    """All that the core was built for; of kernels with clusters those that have them, if any does."""
    archs = backend_info()["cuda_archs"].split()
    newer = [arch for arch in archs if int(arch.rstrip("af")) >= 90]
    return newer or archs if source.stem.endswith("_cluster") else archs


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_spills_and_few_registers(source):
    found = kernels(source)
    assert {kernel["arch"] for kernel in found} == set(archs_of(source))
    for kernel in found:
        limit = POOL_LIMIT if "normalise_pool" in kernel["name"] else LIMITS.get(source.name, USUAL_LIMIT)
        where = f"{kernel['name']} for sm_{kernel['arch']}"
        assert kernel["stack"] == kernel["stores"] == kernel["loads"] == "0", f"{where} uses the stack"
        assert int(kernel["registers"]) <= limit, f"{where} uses {kernel['registers']} > {limit} registers"
