"""What an engine is made of: its buffers, and the convolution by F(4x4, 3x3)."""

import pytest
import torch
import torch.nn.functional as F

from langevin_ext import _native
from langevin_ext.engine import convolutions
from langevin_ext.engine.arena import KEPT, Arena

CHANNELS_LAST = torch.channels_last


def test_arena():
    arena = Arena(torch.float32)
    a = arena.take((2, 3, 4, 5))
    assert a.is_contiguous(memory_format=CHANNELS_LAST)
    arena.give(a)
    assert arena.take((2, 3, 4, 5)) is a and arena.take((2, 3, 4, 5)) is not a
    arena.give(*(torch.empty(2, 3, 4, 5) for _ in range(KEPT + 3)))
    assert arena.bytes == 4 * KEPT * 120
    assert arena.scratch(10).numel() == 10 and arena.scratch(4).numel() == 10
    assert arena.bytes == 4 * (KEPT * 120 + 10)
    arena.clear()
    assert arena.bytes == 0


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("channels, outputs", [(16, 48), (80, 16), (96, 144)])  # parts of runs and panels of 64
def test_winograd_equals_the_definition(dilation, channels, outputs):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    bias = torch.randn(outputs, generator=generator)
    conv = convolutions.Winograd(weight, bias, dilation)
    for size in ((16, 16), (7, 9), (1, 3), (4, 30)):
        x = torch.randn(3, channels, *size, generator=generator).contiguous(memory_format=CHANNELS_LAST)
        add = torch.randn(3, outputs, *size, generator=generator).contiguous(memory_format=CHANNELS_LAST)
        expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
        arena = Arena(torch.float32)
        y = conv(x, arena)
        # values of order 1; the matrices enlarge the sums' rounding, a few 2^-24, about tenfold: 1.1e-6 seen, and
        # 1.1e-5 for the largest of 300,000
        assert (y - expected).square().mean().sqrt() < 2e-6
        assert (y - expected).abs().max() < 2e-5
        assert (conv(x, arena, add.clone(memory_format=CHANNELS_LAST)) - expected - add).abs().max() < 2e-5
        arena.threads = 3
        split = [conv(part.contiguous(memory_format=CHANNELS_LAST), arena) for part in (x[:1], x[1:])]
        assert torch.equal(torch.cat(split), y)  # a pixel's sums depend on neither threads nor batch
        if size[0] % 2 == size[1] % 2 == 0 and dilation == 1:
            pooled = convolutions.Winograd(weight, bias, pool=True)(x, arena)
            assert (pooled - F.avg_pool2d(expected, 2)).abs().max() < 2e-5


needs_int16 = pytest.mark.skipif(bool(convolutions.why_not_int16()), reason=convolutions.why_not_int16())


@needs_int16
@pytest.mark.parametrize("dilation", [1, 2, 4])
# parts of pairs' groups of 32, runs of 128, panels of 64
@pytest.mark.parametrize("channels, outputs", [(16, 48), (80, 16), (144, 144), (288, 64)])
def test_winograd_int16_equals_the_definition(dilation, channels, outputs):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    weight[0], weight[1], weight[:, 2] = 0, 1e4 * weight[1], 0
    bias = torch.randn(outputs, generator=generator)
    conv = convolutions.WinogradInt16(weight, bias, dilation)
    for size in ((16, 16), (7, 9), (1, 3), (4, 30)):
        x = torch.randn(3, channels, *size, generator=generator).contiguous(memory_format=CHANNELS_LAST)
        add = torch.randn(3, outputs, *size, generator=generator).contiguous(memory_format=CHANNELS_LAST)
        expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=dilation, dilation=dilation)
        each = expected.square().mean((0, 2, 3)).sqrt().view(1, -1, 1, 1)
        arena = Arena(torch.float32)
        y = conv(x, arena)
        # both factors, integers of about 1800, are off by 0.3, which the matrices enlarge fivefold
        assert ((y - expected) / each).square().mean().sqrt() < 1.5e-3
        assert ((y - expected) / each).abs().max() < 9e-3  # six of these
        assert (conv(x, arena, add.clone(memory_format=CHANNELS_LAST)) - y - add).abs().max() < 1e-5 * y.abs().max()
        arena.threads = 3
        split = [conv(part.contiguous(memory_format=CHANNELS_LAST), arena) for part in (x[:1], x[1:])]
        assert torch.equal(torch.cat(split), y)  # a pixel's sums depend on neither threads nor batch
        if size[0] % 2 == size[1] % 2 == 0 and dilation == 1:
            pooled = convolutions.WinogradInt16(weight, bias, pool=True)(x, arena)
            assert ((pooled - F.avg_pool2d(expected, 2)) / each).abs().max() < 9e-3


@needs_int16
@pytest.mark.parametrize("changed", [1, 16, 64, 120])
@pytest.mark.parametrize("factor", [0, 1e-3])
def test_small_taps_of_some_outputs_leave_the_others_as_they_are(changed, factor):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 64, 3, 3, generator=generator) / 24
    weight[:changed, :, 0] *= factor
    x = torch.randn(2, 64, 12, 12, generator=generator).contiguous(memory_format=CHANNELS_LAST)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    y = convolutions.WinogradInt16(weight, None)(x, Arena(torch.float32))
    # 1.1e-3 without the change; at worst the shared scales are four times too fine for an output's own
    error, size = ((t * t).sum((0, 2, 3)) for t in (y - expected, expected))
    assert (error / size).max() < 4e-3**2


@needs_int16
@pytest.mark.parametrize("channels", [16, 128, 256])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_fit(channels, sign):
    # all products of a sum have one sign and their largest size
    weight = sign * torch.arange(1.0, 10).view(1, 1, 3, 3).expand(16, channels, 3, 3)
    x = torch.arange(25.0).square().view(1, 1, 5, 5).expand(1, channels, 5, 5).contiguous(memory_format=CHANNELS_LAST)
    expected = F.conv2d(x.double(), weight.double(), padding=1)
    y = convolutions.WinogradInt16(weight, None)(x, Arena(torch.float32))
    assert (y - expected).abs().max() < 1e-3 * expected.abs().max()


@needs_int16
def test_int16_has_the_range_of_float32():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 32, 3, 3, generator=generator)
    x = torch.randn(1, 32, 8, 8, generator=generator).contiguous(memory_format=CHANNELS_LAST)
    conv, arena = convolutions.WinogradInt16(weight, None), Arena(torch.float32)
    y = conv(x, arena).clone()
    for power in (-60, 60, 100):  # of two, so that nothing rounds
        assert torch.equal(conv(x * 2.0**power, arena), y * 2.0**power)
    assert torch.equal(conv(x * 0, arena), torch.zeros_like(y))
    for bad in (float("nan"), float("inf"), -float("inf")):
        x[0, 5, 1, 6] = bad
        found = conv(x, arena).isfinite()
        assert not found[
            :, :, :3, 5:
        ].any()  # wherever its pixel counts, as in float32; the rest of the tile may follow
        assert found[:, :, 4:, :4].all()


def test_the_core_refuses_what_would_leave_memory():
    core = _native.core(torch.device("cpu"))
    x = torch.zeros(1, 16, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    weight, scratch = torch.zeros(36 * 256), torch.zeros(core.winograd_scratch(x, 16, 1))

    y = x.clone()

    def call(x=x, weight=weight, y=y, scratch=scratch, add=None, bias=None, dilation=1, pool=False):
        core.winograd(x, weight, bias, add, y, scratch, dilation, pool, 1)

    call()
    for arguments, message in (
        ({"x": x[:, :8].contiguous(memory_format=CHANNELS_LAST)}, "channels must be multiples of 16"),
        ({"x": x.double()}, "x must be .* float32"),
        ({"x": x.contiguous()}, "x and y must be channels-last"),
        ({"weight": weight[1:]}, "contiguous and large enough"),
        ({"scratch": scratch[1:]}, "contiguous and large enough"),
        ({"bias": torch.zeros(15)}, "contiguous and large enough"),
        ({"add": x[:, :, :2]}, "one shape"),
        ({"y": x[:, :, :2].contiguous(memory_format=CHANNELS_LAST)}, "the shape of the result"),
        ({"pool": True}, "the shape of the result"),
        ({"pool": True, "dilation": 2}, "even sizes and no dilation"),
        ({"dilation": 0}, "dilation must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**arguments)


@needs_int16
def test_the_core_refuses_int16_weights_of_another_form():
    core = _native.core(torch.device("cpu"))
    x = torch.zeros(1, 16, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    scratch, y = torch.zeros(core.winograd_int16_scratch(x, 16, 1)), x.clone()
    good = {
        "weight": torch.zeros(36 * 2 * 256, dtype=torch.int16),
        "point_scale": torch.ones(36),
        "scale": torch.ones(16),
        "bias": None,
        "add": None,
        "y": y,
        "scratch": scratch,
    }

    core.winograd_int16(x, *good.values(), 1, False, 1)
    for arguments, message in (
        ({"weight": torch.zeros(36 * 2 * 256)}, "weight must be contiguous int16 and large enough"),
        ({"weight": good["weight"][1:]}, "weight must be contiguous int16 and large enough"),
        ({"point_scale": torch.ones(35)}, "contiguous and large enough"),
        ({"scale": torch.ones(15)}, "contiguous and large enough"),
        ({"scratch": scratch[1:]}, "contiguous and large enough"),
        ({"y": x[:, :, :2].contiguous(memory_format=CHANNELS_LAST)}, "the shape of the result"),
    ):
        with pytest.raises(ValueError, match=f"winograd_int16: .*{message}"):
            core.winograd_int16(x, *(good | arguments).values(), 1, False, 1)
