"""Completions of half-occluded images (NCSN, arXiv:1907.05600, Figure 6)."""

import pytest
import torch

from langevin_ext import noise
from langevin_ext.experiments import inpainting
from langevin_ext.experiments.inpainting import CASES, Completed, complete, distances


def made(filled, originals):
    """Completions (n, variants, 1, 2, 4) of originals (n, 1, 2, 4), the left half known."""
    mask = torch.zeros(1, 2, 4, dtype=torch.bool)
    mask[:, :, :2] = True
    labels = torch.zeros(len(originals), dtype=torch.int64)
    return Completed(originals, labels, mask, filled, filled, originals, 0.01)


def test_distances_are_over_the_unknown_half():
    originals = torch.zeros(2, 1, 2, 4)
    originals[1] = 1.0
    filled = originals[:, None].repeat(1, 2, 1, 1, 1)
    filled[..., :2] += 7.0  # known pixels do not count
    filled[0, 0, ..., 2:] += 0.5
    pairs, error, others = distances(made(filled, originals))
    # 4 pixels: (.5, 0) against 0 and (1, 1) against 1; others (.5 or 0) against 1
    assert pairs.tolist() == pytest.approx([4 * 0.25, 0.0])
    assert error.tolist() == pytest.approx([4 * 0.25 / 2, 0.0])
    assert others == pytest.approx((4 * 0.25 + 4 * 1.0) / 2)


def test_exact_posterior_samples_have_ratio_one():
    """Originals and completions drawn from one law are exchangeable: |x - x'|^2 and |x - original|^2 have one mean."""
    draw = noise.normal((1000, 4, 1, 2, 4), seed=0)
    pairs, error, _ = distances(made(draw[:, 1:], draw[:, 0]))
    # four pixels, two normals each: 8, with a standard error of at most .16 (a chi^2 with 4 degrees, times 2, of 1000)
    assert float(pairs.mean()) == pytest.approx(8.0, abs=0.7) and float(error.mean()) == pytest.approx(8.0, abs=0.7)


def test_known_pixels_and_variants():
    done = complete(CASES[0], 0.01, seed=3)
    n, variants = done.filled.shape[:2]
    assert (n, variants) == (CASES[0].least, 2) and done.noise == pytest.approx(0.01)
    known = done.mask.expand_as(done.filled)
    assert done.mask[:, :, :4].all() and not done.mask[:, :, 4:].any()
    assert torch.equal(done.filled[known], done.originals[:, None].expand_as(done.filled)[known])
    assert 0 < (done.raw - done.filled)[known].abs().max() < 6 * done.noise  # of 1,000 normals
    assert not torch.equal(done.filled[:, 0], done.filled[:, 1])
    assert torch.equal(done.averaged[done.mask.expand_as(done.averaged)], done.filled[:, 0][known[:, 0]])


def test_experiment(tmp_path):
    report = inpainting.run(tmp_path, size=0.1, progress=False)
    assert [one.what for one in report.findings if not one.reproduced] == []
    assert [path.name for path in report.figures] == ["inpainting-digits.png", "inpainting-glyphs.png"]
    assert all(path.stat().st_size > 5_000 for path in report.figures)
