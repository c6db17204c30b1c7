"""FSRCNN, a small network that doubles the size of images, and the reader of its common checkpoint layout.

The network enlarges the luma of an image. Colours are BT.601 in the studio range, on the scale where 255 is 1:

    Y  = ( 16 + 219 (.299 R + .587 G + .114 B)) / 255                     black 16/255, white 235/255
    Cb = (128 + 224 (B - luma) / (2 (1 - .114))) / 255                    luma = .299 R + .587 G + .114 B
    Cr = (128 + 224 (R - luma) / (2 (1 - .299))) / 255
"""

import math
import re
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional

from .import_ncsn import read_state, some

__all__ = ["FSRCNN", "bicubic", "import_fsrcnn", "luma", "rgb_to_ycbcr", "ycbcr_to_rgb"]

SCALE = 2
LUMA = (0.299, 0.587, 0.114)
FLAT = 0.5  # luma of the image that tells the scale of a checkpoint


class FSRCNN(nn.Module):
    """Upsampling network of Dong, Loy & Tang 2016 (arXiv:1608.00367, section 3), x2; usable as `upsample=`.

        5x5 conv 1 -> d; 1x1 conv d -> s; m times 3x3 conv s -> s; 1x1 conv s -> d; 9x9 transposed conv d -> 1, stride 2

    with a PReLU for each channel after each convolution but the last. One channel is enlarged as it is. Of three, Y is;
    Cb and Cr are enlarged by torch's bicubic interpolation. The parameters have the names and shapes of the common
    PyTorch code for it (first_part, mid_part, last_part), 12,809 of them with the defaults. Initial weights, drawn
    as in the paper, come from torch's global generator.

    Args:
        d: channels of the features.
        s: channels after the shrinking.
        m: number of 3x3 convolutions.
        clip: bring the result to [0, 1]. That also cuts the noise of a noisy image where it leaves the range, so that
            for noisy states the bicubic upsampling or adding the noise afterwards (`renoise`) suits better.

    Raises:
        ValueError: d, s or m is no positive integer.
        TypeError: clip is not True or False.
    """

    def __init__(self, d=56, s=12, m=4, clip=True):
        for name, value in (("d", d), ("s", s), ("m", m)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"FSRCNN: {name} must be a positive integer, got {value!r}")
        if not isinstance(clip, bool):
            raise TypeError(f"FSRCNN: clip must be True or False, got {clip!r}")
        super().__init__()
        self.d, self.s, self.m, self.clip = d, s, m, clip
        mapping = [layer for _ in range(m) for layer in (nn.Conv2d(s, s, 3, padding=1), nn.PReLU(s))]
        self.first_part = nn.Sequential(nn.Conv2d(1, d, 5, padding=2), nn.PReLU(d))
        self.mid_part = nn.Sequential(nn.Conv2d(d, s, 1), nn.PReLU(s), *mapping, nn.Conv2d(s, d, 1), nn.PReLU(d))
        self.last_part = nn.ConvTranspose2d(d, 1, 9, stride=SCALE, padding=4, output_padding=SCALE - 1)
        self._start()

    def _start(self):
        """He's initial weights before PReLUs of slope 1/4, and N(0, .001^2) in the transposed convolution."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.last_part.weight, std=0.001)
        nn.init.zeros_(self.last_part.bias)

    def config(self):
        """Everything `langevin_ext.models.build` needs."""
        return {"class": type(self).__name__, "d": self.d, "s": self.s, "m": self.m, "clip": self.clip}

    def forward(self, x):
        """The image at twice its height and width.

        Args:
            x: (B, 1 or 3, H, W) floating, images in [0, 1] (gray or RGB), on the network's device. Colours are computed
                in float32 at least, the network in the type of its weights.

        Returns:
            (B, C, 2H, 2W) of x's type; in [0, 1] with clip.

        Raises:
            TypeError, ValueError: x is not such a tensor.
        """
        self._check(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if x.shape[1] == 1:
            y = self.enlarge(wide)
        else:
            ycbcr = rgb_to_ycbcr(wide)
            y = ycbcr_to_rgb(torch.cat([self.enlarge(ycbcr[:, :1]), bicubic(ycbcr[:, 1:])], dim=1))
        return (y.clamp(0.0, 1.0) if self.clip else y).to(x.dtype)

    def enlarge(self, y):
        """The network itself: luma (B, 1, H, W) -> (B, 1, 2H, 2W), not clipped."""
        features = self.mid_part(self.first_part(y.to(self.last_part.weight.dtype)))
        return self.last_part(features).to(y.dtype)

    def _check(self, x):
        if not torch.is_tensor(x) or not x.is_floating_point():
            raise TypeError(f"FSRCNN: x must be a floating tensor, got {getattr(x, 'dtype', type(x).__name__)}")
        if x.dim() != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
            raise ValueError(f"FSRCNN: x must be (B, 1, H, W) or (B, 3, H, W), none empty, got {tuple(x.shape)}")
        if x.device != self.last_part.weight.device:
            raise ValueError(f"FSRCNN: x must be on the network's {self.last_part.weight.device}, got {x.device}")


def bicubic(x):
    """Images (B, C, H, W) at twice their size by torch's bicubic interpolation (a = -.75, pixel centres aligned)."""
    return functional.interpolate(x, scale_factor=SCALE, mode="bicubic", align_corners=False)


def rgb_to_ycbcr(x):
    """Y, Cb, Cr as in the head of this module: (B, 3, H, W) floating, R, G, B in [0, 1] -> the same shape."""
    matrix, _, offset = _bt601(x.device, x.dtype)
    return _product(matrix, x) + offset


def ycbcr_to_rgb(x):
    """The inverse of `rgb_to_ycbcr`, not clipped."""
    _, inverse, offset = _bt601(x.device, x.dtype)
    return _product(inverse, x - offset)


def luma(x):
    """What the network enlarges: Y of three channels, and one channel itself; (B, 1 or 3, H, W) -> (B, 1, H, W)."""
    return x if x.shape[1] == 1 else rgb_to_ycbcr(x)[:, :1]


def _product(matrix, x):
    """matrix (3, 3) times the channels of x (B, 3, H, W), as sums: neither TF32 nor autocast shortens the factors."""
    return sum(matrix[:, i, None, None] * x[:, i : i + 1] for i in range(3))


@lru_cache(maxsize=16)
def _bt601(device, dtype):
    """(matrix, inverse, offset (3, 1, 1)) on a device."""
    red, green, blue = LUMA
    matrix = torch.tensor(
        [
            [219 * red, 219 * green, 219 * blue],
            [-112 * red / (1 - blue), -112 * green / (1 - blue), 112.0],
            [112.0, -112 * green / (1 - red), -112 * blue / (1 - red)],
        ],
        dtype=torch.float64,
        device="cpu",
    ).div_(255)
    offset = torch.tensor([16.0, 128.0, 128.0], dtype=torch.float64, device="cpu").div_(255)
    with torch.inference_mode(False):  # kept for calls that record gradients too
        return tuple(t.to(device, dtype) for t in (matrix, torch.linalg.inv(matrix), offset[:, None, None]))


def import_fsrcnn(path) -> FSRCNN:
    """The network of a checkpoint in the common PyTorch layout of FSRCNN (arXiv:1608.00367), on the CPU.

    Read are a state dict, also with the prefix `module.`, or a list that starts with one; objects are never unpickled.
    d, s and m come from the shapes. The scale is not stored, and weights for x3 and x4 have equal shapes; they are told
    by what they make of a flat image, which they would brighten.

    Args:
        path: a .pth file written by torch.save, of a network for x2 on the Y channel in [0, 1].

    Returns:
        FSRCNN in evaluation mode, with clip.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a checkpoint; the message names the tensors that do not fit.
    """
    from ..training.checkpoint import check_fit

    state = read_state(path, ema=False, name="import_fsrcnn")
    model = FSRCNN(*_sizes(path, state))
    check_fit(model, state, f"import_fsrcnn: {path}")
    model.load_state_dict(state)
    _check_scale(path, model)
    return model.eval()


def _sizes(path, state):
    """(d, s, m), read off the tensors."""
    first, shrink = (state.get(f"{name}.weight") for name in ("first_part.0", "mid_part.0"))
    if first is None or shrink is None or first.dim() != 4 or shrink.dim() != 4:
        raise ValueError(
            f"import_fsrcnn: {path} must have convolutions first_part.0.weight and mid_part.0.weight, got {some(state)}"
        )
    places = [int(found[1]) for name in state if (found := re.match(r"mid_part\.(\d+)\.", name))]
    return first.shape[0], shrink.shape[0], max(max(places) // 2 - 1, 1)  # mid_part has 2 m + 4 layers


@torch.no_grad()
def _check_scale(path, model):
    """Raises ValueError where the weights are for another scale: a stride s' instead of s brightens by (s / s')^2."""
    margin = 4 + model.m  # what the zeros beyond the border reach, and more
    flat = model.enlarge(torch.full((1, 1, 2 * margin + 4, 2 * margin + 4), FLAT))
    level = flat[..., 2 * margin : -2 * margin, 2 * margin : -2 * margin].mean().item()
    if not -math.inf < level < 1.5 * FLAT:
        raise ValueError(
            f"import_fsrcnn: {path} must be trained for x2 on luma in [0, 1], got weights that turn a flat image "
            f"of {FLAT} into one of {level:.3g} (those for x3 and x4 have equal shapes)"
        )
