"""Each benchmark once at a tiny size: it checks its results, and its rows are complete. No time is asserted."""

import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from langevin_ext.models import NCSN, NCSNv2

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from official import official_forward  # noqa: E402

OPS = (
    "langevin_step",
    "perturb",
    "dsm_loss+gradient",
    "upsample_bicubic2x",
    "upsample_bicubic2x+noise",
    "instance_norm_plus+ELU NCHW",
    "instance_norm_plus+ELU NHWC",
)
CASES = {
    "kernels": ("--size 16 --batch 2 --channels 16 --no-compile", "op", OPS),
    "network": (
        "--size 16 --batch 2 --ngf 16",
        "implementation",
        ("official eager", "langevin_ext module", "engine", "convolutions alone"),
    ),
    "training": ("--size 16 --batch 2 --ngf 16", "implementation", ("official eager", "langevin_ext")),
    "multiresolution": (
        "--size 16 --batch 2 --ngf 8 --steps-each 1",
        "part",
        ("1 steps at 8x8", "upsampling to 16x16", "1 steps at 16x16", "whole run"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_complete(name, tmp_path):
    arguments, key, expected = CASES[name]
    output = tmp_path / "rows.jsonl"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments.split(), "--repeats", "2", "--warmup", "1"]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    found = {row[key] for row in rows}
    assert found >= set(expected), found
    for row in rows:
        times = [value for field, value in row.items() if field in ("median_us", "median_s")]
        assert len(times) == 1 and 0 < times[0] < math.inf
        assert row["commit"] and row["device"] and row["threads"] == 1 and row["torch"]


class Made(TorchDispatchMode):
    """The tensors that operators return."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.tensors += [leaf for leaf in tree_leaves(found) if torch.is_tensor(leaf)]
        return found


@pytest.mark.parametrize("make", [NCSN, NCSNv2])
def test_the_released_forward_stays_on_its_device(make):
    """An upload would be timed with it, and ends the capture of a graph."""
    model, level = make((3, 16, 16), 4).to("meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    with torch.no_grad(), Made() as made:
        official_forward(model.state_dict(), torch.rand(2, 3, 16, 16, device="meta"), level)
    assert len(made.tensors) > 100 and {tensor.device.type for tensor in made.tensors} == {"meta"}
