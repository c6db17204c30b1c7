"""The CUDA kernels' block logic, run on the CPU by the emulation, equals the CPU core or the float64 reference.

Each case runs under several orders of threads and blocks, which must give the same bits.
"""

import pytest
import torch
from emulation import cases, checks

from langevin_ext import _native

pytestmark = pytest.mark.skipif(_native._core is None, reason="the native core is not installed")
CASES = [(op, case) for op, some in cases.ALL.items() for case in some]


def label(case):
    return "-".join(str(v).removeprefix("torch.").replace(", ", "x").strip("()") for v in case.values())


@pytest.mark.parametrize(("op", "case"), CASES, ids=[f"{op}-{label(case)}" for op, case in CASES])
def test_op(emulation, op, case):
    if not hasattr(emulation.module, op) and op != "noise":
        pytest.skip("no CUDA kernel yet")
    checks.check(op, emulation, **case)


def test_float64_goes_to_the_cpu_core(emulated):
    from langevin_ext import ops

    x, score = torch.zeros(2, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    ops.langevin_step(x, score, 0.5, 0.0, seed=1, step=0)
    assert torch.equal(x, torch.full_like(x, 0.5))
