"""FSRCNN: its layout, its colours, what it does to an image with weights made by hand, and reading of its files."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

import langevin_ext
from langevin_ext import noise
from langevin_ext.models import FSRCNN, build, fsrcnn, import_fsrcnn
from langevin_ext.scores import GaussianField
from langevin_ext.training import describe, save

LAYOUT = {  # of the common public checkpoints, d=56, s=12, m=4
    "first_part.0.weight": (56, 1, 5, 5),
    "first_part.0.bias": (56,),
    "first_part.1.weight": (56,),
    "mid_part.0.weight": (12, 56, 1, 1),
    "mid_part.0.bias": (12,),
    "mid_part.1.weight": (12,),
    **{f"mid_part.{i}.weight": (12, 12, 3, 3) for i in (2, 4, 6, 8)},
    **{f"mid_part.{i}.bias": (12,) for i in (2, 4, 6, 8)},
    **{f"mid_part.{i}.weight": (12,) for i in (3, 5, 7, 9)},
    "mid_part.10.weight": (56, 12, 1, 1),
    "mid_part.10.bias": (56,),
    "mid_part.11.weight": (56,),
    "last_part.weight": (56, 1, 9, 9),
    "last_part.bias": (1,),
}
BLOCK = {2: slice(4, 6), 3: slice(3, 6), 4: slice(3, 7)}  # taps of the 9 that reach the pixels of one input pixel


def by_hand(sizes=(3, 2, 1), scale=2, clip=True, gain=1.0):
    """A network whose first channel carries the luma unchanged, then repeated scale x scale times: `nearest`."""
    model = FSRCNN(*sizes, clip=clip).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.PReLU):
                module.weight.fill_(1.0)
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                module.weight.zero_()
                module.bias.zero_()
            if isinstance(module, torch.nn.Conv2d):
                side = module.kernel_size[0] // 2
                module.weight[0, 0, side, side] = 1.0
        model.last_part.weight[0, 0, BLOCK[scale], BLOCK[scale]] = gain
    return model


def images(channels, n=3, height=6, width=10, dtype=torch.float32):
    return noise.uniform((n, channels, height, width), 3).to(dtype)


def nearest(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_layout_of_the_parameters():
    model = FSRCNN()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == LAYOUT
    assert sum(p.numel() for p in model.parameters()) == 12_809
    assert len(FSRCNN(8, 4, 2).mid_part) == 8 and not list(model.buffers())


def test_initial_weights_are_the_papers():
    torch.manual_seed(0)
    model = FSRCNN(200, 60, 1)  # wide, so that the standard error tells slope 1/4 from 0, which differ by 3 %
    for name, fan_in in (("first_part.0", 25), ("mid_part.0", 200), ("mid_part.2", 540), ("mid_part.4", 60)):
        weight = model.get_submodule(name).weight
        expected = math.sqrt(2 / (1 + 0.25**2) / fan_in)
        assert abs(weight.std().item() / expected - 1) < 5 / math.sqrt(2 * weight.numel()), name  # 5 standard errors
    weight = model.last_part.weight
    assert abs(weight.std().item() / 0.001 - 1) < 5 / math.sqrt(2 * weight.numel())
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    "rgb, ycbcr",
    [
        ((0, 0, 0), (16, 128, 128)),
        ((1, 1, 1), (235, 128, 128)),
        ((1, 0, 0), (81.481, 90.20316, 240)),
        ((0, 1, 0), (144.553, 53.79684, 34.21398)),
        ((0, 0, 1), (40.966, 240, 109.78602)),
        ((0.5, 0.5, 0.5), (125.5, 128, 128)),
    ],
    ids="black white red green blue gray".split(),
)
def test_known_colours(rgb, ycbcr):
    # BT.601: Y = 16 + 65.481 R + 128.553 G + 24.966 B, and so on; the values above have five decimals
    x = torch.tensor(rgb, dtype=torch.float64).reshape(1, 3, 1, 1)
    y = torch.tensor(ycbcr, dtype=torch.float64).reshape(1, 3, 1, 1) / 255
    torch.testing.assert_close(fsrcnn.rgb_to_ycbcr(x), y, rtol=0, atol=1e-5 / 255)
    torch.testing.assert_close(fsrcnn.ycbcr_to_rgb(y), x, rtol=0, atol=3e-5 / 219)
    torch.testing.assert_close(fsrcnn.luma(x), y[:, :1], rtol=0, atol=1e-5 / 255)


def test_gray_luma_is_the_channel_itself():
    x = images(1)
    assert fsrcnn.luma(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_colours_come_back_to_rounding(dtype):
    x = images(3, dtype=dtype) * 1.4 - 0.2
    # at most 8 roundings of values up to 4.5 (the largest partial sums of the inverse)
    atol = 8 * 4.5 * torch.finfo(dtype).eps / 2
    torch.testing.assert_close(fsrcnn.ycbcr_to_rgb(fsrcnn.rgb_to_ycbcr(x)), x, rtol=0, atol=atol)


def test_colours_keep_their_precision_under_autocast():
    x = images(3)
    with torch.autocast("cpu", torch.bfloat16):
        y = fsrcnn.rgb_to_ycbcr(x)
    assert y.dtype == torch.float32 and torch.equal(y, fsrcnn.rgb_to_ycbcr(x))


@pytest.mark.parametrize("sizes", [(3, 2, 1), (56, 12, 4)])
def test_where_the_pixels_go(sizes):
    # exactly `nearest`: a shift by one pixel, or another padding, would show
    x = images(1)
    with torch.no_grad():
        torch.testing.assert_close(by_hand(sizes)(x), nearest(x), rtol=0, atol=0)


def test_colour_image_has_enlarged_luma_and_bicubic_chroma():
    x = images(3)
    with torch.no_grad():
        got = fsrcnn.rgb_to_ycbcr(by_hand(clip=False)(x))
        dark = fsrcnn.rgb_to_ycbcr(by_hand(clip=False, gain=0.0)(x))
    smooth = fsrcnn.rgb_to_ycbcr(interpolate(x, scale_factor=2, mode="bicubic", align_corners=False))
    tolerance = {"rtol": 0, "atol": 4e-6}  # there and back: the bound above, twice
    torch.testing.assert_close(got[:, :1], nearest(fsrcnn.luma(x)), **tolerance)
    torch.testing.assert_close(got[:, 1:], smooth[:, 1:], **tolerance)
    torch.testing.assert_close(dark[:, 1:], smooth[:, 1:], **tolerance)
    torch.testing.assert_close(dark[:, :1], torch.zeros_like(dark[:, :1]), **tolerance)


def test_gray_as_colour_stays_gray():
    # equal channels have no chroma, so the result is that of the luma, brought back to [0, 1]
    x = images(1)
    with torch.no_grad():
        y = by_hand()(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(y, nearest(x).expand(-1, 3, -1, -1), rtol=0, atol=4e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_clip(channels):
    x = images(channels) * 3 - 1
    with torch.no_grad():
        clipped, whole = (by_hand(clip=clip)(x) for clip in (True, False))
    assert whole.min() < -0.5 and whole.max() > 1.5 and torch.equal(clipped, whole.clamp(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_as_the_upsampling_of_a_scheme(channels):
    high = GaussianField((channels, 8, 12))
    low, options = high.pooled(), {"n": 3, "seed": 1, "n_steps_each": 2, "denoise": False, "progress": False}
    model = by_hand()
    x = langevin_ext.sample([low, high], scheme="LRS-up", upsample=model, **options)
    before = langevin_ext.sample(low, scheme="HRS", **options)
    assert x.shape == (3, channels, 8, 12) and torch.equal(x, model(before))


@pytest.mark.parametrize("channels", [1, 3])
def test_types_and_layouts(channels):
    torch.manual_seed(1)
    model, x = FSRCNN(8, 4, 2, clip=False), images(channels)
    with torch.no_grad():
        model.last_part.weight.mul_(100)
        y = model(x)
        assert y.shape == (3, channels, 12, 20)
        strided = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(strided), y)
        double = model(x.double())
        assert double.dtype == torch.float64  # chroma in float64, the network in its own float32
        torch.testing.assert_close(double.float(), y, rtol=1e-5, atol=1e-5)
        half = model(x.bfloat16())
        assert half.dtype == torch.bfloat16
        # what the inputs' rounding to 8 bits allows: the network's result changes with them
        torch.testing.assert_close(half, model(x.bfloat16().float()).bfloat16(), rtol=0, atol=0)
        torch.testing.assert_close(model.double()(x.double()).float(), y, rtol=1e-4, atol=1e-5)


def test_gradients_after_a_call_without():
    # constants made in inference mode must not be kept for calls that record gradients
    fsrcnn._bt601.cache_clear()
    model, x = by_hand(clip=False), images(3).requires_grad_()
    with torch.inference_mode():
        model(x.detach())
    model(x).sum().backward()
    # nearest and bicubic keep sums: each pixel counts four times in its own channel, borders aside
    torch.testing.assert_close(x.grad.sum(), torch.tensor(4.0 * x.numel()), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "x, message",
    [
        (
            torch.zeros(1, 2, 4, 4),
            r"FSRCNN: x must be \(B, 1, H, W\) or \(B, 3, H, W\), none empty, got \(1, 2, 4, 4\)",
        ),
        (torch.zeros(1, 4, 4), r"none empty, got \(1, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4), r"none empty, got \(0, 1, 4, 4\)"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "FSRCNN: x must be a floating tensor, got torch.uint8"),
        ([[1.0]], "FSRCNN: x must be a floating tensor, got list"),
        (torch.zeros(1, 1, 4, 4, device="meta"), "FSRCNN: x must be on the network's cpu, got meta"),
    ],
)
def test_wrong_images(x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        by_hand()(x)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"d": 0}, "FSRCNN: d must be a positive integer, got 0"),
        ({"s": 1.5}, "FSRCNN: s must be a positive integer, got 1.5"),
        ({"m": True}, "FSRCNN: m must be a positive integer, got True"),
        ({"clip": 1}, "FSRCNN: clip must be True or False, got 1"),
    ],
)
def test_wrong_sizes(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FSRCNN(**options)


def test_checkpoint_of_the_package(tmp_path):
    model = FSRCNN(8, 4, 2, clip=False)
    assert model.config() == {"class": "FSRCNN", "d": 8, "s": 4, "m": 2, "clip": False}
    assert build(FSRCNN().config()).config() == FSRCNN().config()
    save(tmp_path / "up.safetensors", model, metadata={"steps": 1})
    again = langevin_ext.load(tmp_path / "up.safetensors")
    assert type(again) is FSRCNN and again.config() == model.config() and not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert describe(tmp_path / "up.safetensors")["parameters"] == sum(p.numel() for p in model.parameters())


def write(path, content):
    torch.save(content, path)
    return path


def prefixed(state):
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("sizes", [(56, 12, 4), (32, 5, 1), (2, 3, 2)])
@pytest.mark.parametrize(
    "layout", [dict, prefixed, lambda state: [state, {"lr": 1e-3}]], ids="plain module list".split()
)
def test_public_checkpoints(tmp_path, sizes, layout):
    torch.manual_seed(2)
    model = FSRCNN(*sizes)
    loaded = import_fsrcnn(write(tmp_path / "fsrcnn_x2.pth", layout(model.state_dict())))
    assert (loaded.d, loaded.s, loaded.m) == sizes and loaded.clip and not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def changed(change):
    state = dict(by_hand((4, 3, 2)).state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "content, message",
    [
        (changed(lambda s: s.pop("mid_part.4.bias")), "must fit FSRCNN, got: mid_part.4.bias is missing$"),
        (changed(lambda s: s.pop("mid_part.7.weight")), "must fit FSRCNN, got: mid_part.7.weight is missing$"),
        (changed(lambda s: s.pop("last_part.bias")), "must fit FSRCNN, got: last_part.bias is missing$"),
        (changed(lambda s: s.update(more=torch.zeros(1))), "must fit FSRCNN, got: more is unknown$"),
        (
            changed(lambda s: s.update({"last_part.weight": torch.zeros(4, 1, 5, 5)})),
            r"last_part.weight has shape \(4, 1, 5, 5\) instead of \(4, 1, 9, 9\)$",
        ),
        (
            changed(lambda s: s.update({"first_part.0.weight": torch.zeros(4, 3, 5, 5)})),
            r"first_part.0.weight has shape \(4, 3, 5, 5\) instead of \(4, 1, 5, 5\)$",
        ),
        (
            changed(lambda s: s.pop("first_part.0.weight")),
            "must have convolutions first_part.0.weight and mid_part.0.weight, got first_part.0.bias",
        ),
        (
            changed(lambda s: s.update({"mid_part.0.weight": torch.zeros(3)})),
            "must have convolutions first_part.0.weight and mid_part.0.weight",
        ),
        (by_hand(scale=3).state_dict(), r"must be trained for x2 .* of 0.5 into one of 1.12 \(those for x3 and x4"),
        (by_hand(scale=4).state_dict(), "must be trained for x2 .* of 0.5 into one of 2 "),
        (by_hand(gain=math.nan).state_dict(), "must be trained for x2 .* into one of nan"),
        ({"epoch": 3}, "must hold a state dict or a list starting with one, got dict"),
        ([Path("an object")], "must be a file of torch.save with tensors and plain containers alone"),
    ],
    ids="bias prelu last unexpected kernel colour no_first no_mid x3 x4 nan numbers object".split(),
)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    path = write(tmp_path / "c.pth", content)
    with pytest.raises(ValueError, match=message) as caught:
        import_fsrcnn(path)
    assert str(caught.value).startswith(f"import_fsrcnn: {path} ") and "\n" not in str(caught.value)


def test_other_files(tmp_path):
    (tmp_path / "c.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="import_fsrcnn: .*c.pth must be a file of torch.save"):
        import_fsrcnn(tmp_path / "c.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        import_fsrcnn(tmp_path / "nowhere.pth")


@pytest.mark.cuda
@pytest.mark.parametrize("channels", [1, 3])
def test_on_cuda(channels):
    torch.manual_seed(1)
    model, x = FSRCNN().eval(), images(channels)
    with torch.no_grad():
        y = model(x)
        got = model.cuda()(x.cuda())
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), y, rtol=0, atol=2e-3)  # convolutions in TF32, 10 bits, where torch allows it
