"""The code of the README does what it says."""

import re
from pathlib import Path

import torch

import langevin_ext
from langevin_ext.samplers import SCHEMES
from langevin_ext.sampling import plan, sample

README = Path(__file__).parent.parent / "README.md"


def block(heading):
    """The first Python block below a heading."""
    text = README.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def test_a_sampler_of_ones_own():
    names: dict = {}
    try:
        exec(block("Other samplers, and your own"), names)
        assert names["x"].shape == (4, 1, 8, 8) and names["x"].isfinite().all()
        model, run = langevin_ext.load("digits"), {"n_steps_each": 3, "step": 0.3, "progress": False}
        assert plan(model, "shrinking", **run).evaluations == {"8x8": 3 + 2 + 8}
        again = sample(model, "shrinking", 4, batch_size=3, **run)
        torch.testing.assert_close(again, names["x"], rtol=0, atol=1e-4)  # convolutions round by batch size
    finally:
        SCHEMES.pop("shrinking", None)


def test_the_own_sampler_is_short():
    lines = [line for line in block("Other samplers, and your own").splitlines() if line]
    assert len(lines) <= 15
