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
    arena.clear()
    assert arena.bytes == 40


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
        # values of order 1; the matrices enlarge the sums' rounding, a few 2^-24, about tenfold
        assert (y - expected).abs().max() < 1e-5
        assert (conv(x, arena, add.clone(memory_format=CHANNELS_LAST)) - expected - add).abs().max() < 1e-5
        arena.threads = 3
        split = [conv(part.contiguous(memory_format=CHANNELS_LAST), arena) for part in (x[:1], x[1:])]
        assert torch.equal(torch.cat(split), y)  # a pixel's sums depend on neither threads nor batch
        if size[0] % 2 == size[1] % 2 == 0 and dilation == 1:
            pooled = convolutions.Winograd(weight, bias, pool=True)(x, arena)
            assert (pooled - F.avg_pool2d(expected, 2)).abs().max() < 1e-5


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
