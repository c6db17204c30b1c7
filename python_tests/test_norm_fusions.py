"""What instance_norm_plus fuses for an engine alone: a bias before it, and the mean over 5x5 pixels behind it."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from test_instance_norm_plus import DTYPES, FORMATS, ROUNDING, inputs

from langevin_ext import _native, reference
from langevin_ext.ops import norm_forms

pytestmark = pytest.mark.skipif(_native._core is None, reason="the native core is not installed")
# Images smaller than the window, of one row or column, of odd sizes, of several bands of 8 rows, wider than a tile (32
# pixels of 32 channels, 1148 of one); channels around the 32 of a tile and the 128 of a strip.
SHAPES = [
    (2, 3, 7, 9),
    (3, 4, 1, 1),
    (1, 5, 2, 3),
    (2, 2, 4, 4),
    (2, 33, 1, 37),
    (1, 6, 41, 1),
    (2, 32, 16, 16),
    (1, 130, 5, 5),
    (1, 64, 35, 38),
    (1, 40, 67, 70),
    (1, 2, 3, 1200),
    (2, 1, 6, 7),
]


def fused(x, weight, level=None, *, residual=None, bias=None, pool=False, paper=False, elu=False, threads=1):
    """(y, sum or None) by the native core."""
    core, y = _native.core(x.device), torch.empty_like(x)
    total, stats = None if residual is None else torch.empty_like(x), norm_forms.room_for_stats(x)
    scratch = stats.new_empty(core.instance_norm_plus_scratch(x, False))
    images, table = (x, residual, total, y), (weight, level, stats)
    norm_forms.launch(core, 0, images, table, scratch, (paper, 1e-5, elu), threads, bias=bias, pool=pool)
    return y, total


def pooled(y):
    return F.avg_pool2d(y, 5, stride=1, padding=2)


def summed(x, residual, bias):
    """((x + residual) + bias) in the type that is computed with, rounded once to x's."""
    wide = bias.dtype
    return ((x.to(wide) + residual.to(wide)) + bias[:, None, None]).to(x.dtype)


def bias_of(weight, channels):
    """Of the size of the channels' means, and far from having one value."""
    return torch.linspace(-2, 3, channels, dtype=weight.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_against_float64(shape, dtype, layout):
    options = itertools.product([False, True], [False, True], [False, True])  # residual, bias, pool
    for i, (with_residual, with_bias, pool) in enumerate(options):
        form, beta, elu = ("official", "paper")[i % 2], i % 3 > 0, not pool and i % 4 > 1
        x, residual, weight, level, *_ = inputs(shape, dtype, layout, beta, seed=i)
        bias = bias_of(weight, shape[1]) if with_bias else None
        before = x.clone(memory_format=torch.preserve_format)
        y, total = fused(
            x,
            weight,
            level,
            residual=residual if with_residual else None,
            bias=bias,
            pool=pool,
            paper=form == "paper",
            elu=elu,
        )
        what = x.double()
        if with_residual:
            what = summed(x, residual, bias if with_bias else torch.zeros(shape[1], dtype=weight.dtype)).double()
            assert torch.equal(total.double(), what)
        elif with_bias:
            what = what + bias.double()[:, None, None]
        wanted = reference.instance_norm_plus(what, weight.double(), level, form=form, elu=elu)
        # Statistics and coefficients are good to some roundings, 32 of them, of the largest term; the result is rounded
        # once to its dtype. Nothing is rounded in between: the mean has the bound of one value.
        scale = max(1.0, float(wanted.abs().max()))
        wanted = pooled(wanted) if pool else wanted
        low = ROUNDING[dtype] if dtype in (torch.bfloat16, torch.float16) else 0.0
        unit = ROUNDING[torch.float64 if dtype == torch.float64 else torch.float32]
        torch.testing.assert_close(y.double(), wanted, rtol=low, atol=32 * unit * scale)
        assert torch.equal(x, before) and y.stride() == x.stride()


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_the_sum_may_lie_over_x(layout):
    x, residual, weight, level, *_ = inputs((3, 40, 9, 11), torch.float32, layout)
    bias, core = bias_of(weight, 40), _native.core(x.device)
    for pool in (False, True):
        wanted, total = fused(x, weight, level, residual=residual, bias=bias, pool=pool)
        a, y, stats = x.clone(memory_format=torch.preserve_format), torch.empty_like(x), norm_forms.room_for_stats(x)
        scratch = stats.new_empty(core.instance_norm_plus_scratch(x, False))
        images, table = (a, residual, a, y), (weight, level, stats)
        norm_forms.launch(core, 0, images, table, scratch, (False, 1e-5, False), 2, bias=bias, pool=pool)
        assert torch.equal(y, wanted) and torch.equal(a, total)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_bias_leaves_the_deviations_alone(layout):
    """x + 2^20 would have three digits behind the point left. Only alpha's term sees the bias: without it, nothing
    changes; and a bias that all channels share changes it by no more than the rounding of the means, 2^-18 at 64, times
    1 / sqrt(v), about 1 here, and weights below 4."""
    x, _, weight, level, *_ = inputs((2, 24, 12, 13), torch.float32, layout)
    without = weight.clone()
    without[:, 24:48] = 0
    for pool in (False, True):
        plain, shifted = (fused(x, weight, level, pool=pool, bias=b)[0] for b in (None, torch.full((24,), 64.0)))
        assert 0 < (shifted - plain).abs().max() < 16 * 2.0**-18
        plain, shifted = (fused(x, without, level, pool=pool, bias=b)[0] for b in (None, torch.full((24,), 2.0**20)))
        assert torch.equal(plain, shifted)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (1, 40, 40, 36), (2, 1, 3, 5)], ids=str)
def test_the_mean_of_a_constant(shape, layout):
    """n / 25 beta with n of the 25 pixels in the image, to two roundings, whatever the constant is."""
    _, _, weight, level, *_ = inputs(shape, torch.float32)
    beta = weight[level][:, 2 * shape[1] :, None, None].expand(shape)
    inside = pooled(torch.ones(shape, dtype=torch.float64))
    for value in (0.1, 1e6):
        x = torch.full(shape, value).contiguous(memory_format=layout)
        y, _ = fused(x, weight, level, pool=True)
        torch.testing.assert_close(y.double(), inside * beta.double(), rtol=2 * 2.0**-24, atol=0)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_the_mean_around_a_large_mean(layout):
    """Multiples of 2^-11 around 4096, which float32 holds; neighbours have this mean, so that no rounding of it hides
    anything. Of a mean of 25 such values, from which 4096 is taken last, nothing below 2^-12 is left."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randint(-4096, 4096, (2, 36, 12, 8), generator=generator).double() / 2**11
    x = (4096 + torch.stack([half, -half], dim=4).flatten(3)).float().contiguous(memory_format=layout)
    weight = inputs(x.shape, torch.float32)[2]
    weight[:, 36:72] = 0
    y, _ = fused(x, weight, pool=True)
    wanted = pooled(reference.instance_norm_plus(x.double(), weight.double()))
    assert float((y - wanted).abs().max()) < 32 * 2.0**-24 * max(1.0, float(weight.abs().max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_sample_does_not_see_the_batch(dtype, layout):
    x, residual, weight, level, *_ = inputs((5, 36, 40, 34), dtype, layout)
    bias = bias_of(weight, 36)
    for other, pool in ((None, True), (residual, True), (residual, False)):
        whole = fused(x, weight, level, residual=other, bias=bias, pool=pool, threads=3)[0]
        for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
            one = None if other is None else other[part]
            assert torch.equal(fused(x[part], weight, level[part], residual=one, bias=bias, pool=pool)[0], whole[part])


def test_the_core_refuses_what_does_not_fit():
    x, weight, core = torch.zeros(2, 3, 4, 4), torch.zeros(1, 9), _native._core
    stats, scratch, y = norm_forms.room_for_stats(x), torch.empty(core.instance_norm_plus_scratch(x, False)), x.clone()

    def call(images=(x, None, None, y), elu=False, bias=None, pool=False):
        core.instance_norm_plus(*images, weight, None, stats, scratch, False, 1e-5, elu, bias, pool, 1)

    call(bias=torch.zeros(3), pool=True)
    place = "elu must be off and y a tensor of its own where y is pooled"
    for arguments, message in (
        ({"pool": True, "elu": True}, place),
        ({"pool": True, "images": (x, None, None, x)}, place),
        ({"pool": True, "images": (x, x, y, y)}, place),
        ({"bias": torch.zeros(3, dtype=torch.float64)}, "bias must have weight's dtype"),
        ({"bias": torch.zeros(4)}, "bias must be contiguous, with one value for each channel"),
        ({"bias": torch.zeros(1, 3)}, "bias must be contiguous, with one value for each channel"),
        ({"bias": torch.zeros(6)[::2]}, "bias must be contiguous, with one value for each channel"),
    ):
        with pytest.raises(ValueError, match=f"instance_norm_plus: {message}"):
            call(**arguments)
