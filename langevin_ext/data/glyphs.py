"""Letters and figures rendered from the DejaVu fonts that matplotlib ships, at any resolution.

Picture i is a pure function of (split, i): six Philox words choose character, face, rotation, size and place. It is
drawn once on a fine canvas and averaged over blocks, so that every size whose canvas is the same shows the same
picture: the 16 px version is the 32 px version averaged over 2x2 pixels, up to 8-bit rounding. The canvas is the odd
part of the size times the smallest power of two that makes it at least 128 pixels wide.
"""

import math
import string
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from .. import noise
from .common import Request, allocate, bad

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
FACES = tuple(
    f"DejaVu{family}{style}.ttf"
    for family, slant in (("Sans", "Oblique"), ("Serif", "Italic"), ("SansMono", "Oblique"))
    for style in ("", "-Bold", f"-{slant}", f"-Bold{slant}")
)
SEED = 0x676C797068  # "glyph"
N_TRAIN, N_TEST = 10_000, 1_000
CANVAS = 128
EM = 0.85  # font size over canvas at scale 1
ROTATION = 12.0  # degrees either way
SCALE = (0.85, 1.3)
SHIFT = 0.12  # of the canvas, either way
MARGIN = 0.04  # of the canvas, kept free on each side
WORDS = 6


def open_glyphs(count, request: Request):
    """White glyphs on black; `glyphs` holds 10,000 training and 1,000 test pictures, `glyphs:N` N training ones.

    The label is the index in CHARACTERS. Training and test use different Philox steps, so no picture is in both.

    Raises:
        ValueError: the count is no positive integer, or the size is not square.
    """
    n_train = N_TRAIN if not count else int(count) if count.isdecimal() else 0
    if n_train < 1:
        raise bad("glyphs", "glyphs or glyphs:N with N at least 1", f"glyphs:{count}")
    h, w = request.size or (32, 32)
    if h != w:
        raise bad("glyphs", "a square size", (h, w))
    parts = {"train": [(0, n_train)], "test": [(1, N_TEST)], "all": [(0, n_train), (1, N_TEST)]}[request.split]
    total = sum(n for _, n in parts)
    total = min(total, request.limit or total)
    images = allocate((total, request.channels or 1, h, h), "glyphs")
    labels, done = [], 0
    with tqdm(total=total, desc="glyphs", unit="image", disable=None, leave=False) as bar:
        for step, n in parts:
            jitter = draw_jitter(step, min(n, total - done))
            labels.append(jitter["label"])
            for row in zip(*jitter.values(), strict=True):
                images[done] = render(dict(zip(jitter, row, strict=True)), h)
                done += 1
                bar.update()
    return images, np.concatenate(labels)


def draw_jitter(step: int, n: int, first: int = 0) -> dict[str, np.ndarray]:
    """The choices behind glyphs first, ..., first + n - 1; row i depends on (step, first + i) alone.

    Returns:
        arrays (n,): label, face (int64); angle in radians, scale, dx and dy in canvas widths (float64).
    """
    u = noise.uniform((n, WORDS), SEED, step=step, first=first, stream=noise.GLYPHS).double().numpy()
    return {
        "label": np.minimum(u[:, 0] * len(CHARACTERS), len(CHARACTERS) - 1).astype(np.int64),
        "face": np.minimum(u[:, 1] * len(FACES), len(FACES) - 1).astype(np.int64),
        "angle": np.radians(ROTATION * (2 * u[:, 2] - 1)),
        "scale": SCALE[0] + (SCALE[1] - SCALE[0]) * u[:, 3],
        "dx": SHIFT * (2 * u[:, 4] - 1),
        "dy": SHIFT * (2 * u[:, 5] - 1),
    }


def canvas_size(size: int) -> int:
    """Odd part of `size` times the smallest power of two that reaches both `size` and CANVAS."""
    odd = size // (size & -size)
    return max(size, odd << max(0, math.ceil(math.log2(CANVAS / odd))))


def render(glyph: dict, size: int) -> np.ndarray:
    """uint8 (size, size): the ink, turned, scaled and shifted without leaving the canvas, averaged over blocks."""
    canvas = canvas_size(size)
    ink = _ink(int(glyph["face"]), CHARACTERS[glyph["label"]], round(EM * canvas))
    cos, sin, scale = math.cos(glyph["angle"]), math.sin(glyph["angle"]), glyph["scale"]
    box_w = ink.width * abs(cos) + ink.height * abs(sin)
    box_h = ink.width * abs(sin) + ink.height * abs(cos)
    room = canvas * (1 - 2 * MARGIN)
    scale = min(scale, room / max(box_w, box_h))
    free_x, free_y = (room - scale * box_w) / 2, (room - scale * box_h) / 2
    centre_x = canvas / 2 + min(max(glyph["dx"] * canvas, -free_x), free_x)
    centre_y = canvas / 2 + min(max(glyph["dy"] * canvas, -free_y), free_y)
    a, b = cos / scale, sin / scale  # from canvas to ink: the inverse rotation
    coefficients = (
        *(a, b, ink.width / 2 - a * centre_x - b * centre_y),
        *(-b, a, ink.height / 2 + b * centre_x - a * centre_y),
    )
    drawn = ink.transform((canvas, canvas), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    f = canvas // size
    total = np.asarray(drawn).reshape(size, f, size, f).sum(axis=(1, 3), dtype=np.int64)
    return ((total + f * f // 2) // (f * f)).astype(np.uint8)


def _ink(face: int, character: str, em: int) -> Image.Image:
    """The character's ink in mode L with an empty border of two pixels, which the bilinear filter fades into."""
    font = _font(face, em)
    box = font.getbbox(character)
    left, top, right, bottom = math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])
    ink = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(ink).text((2 - left, 2 - top), character, fill=255, font=font)
    return ink


@lru_cache(maxsize=4 * len(FACES))
def _font(face: int, em: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FACES[face]
    if not path.is_file():
        raise FileNotFoundError(f"open_dataset: {path}: expected a DejaVu font of matplotlib, got no such file")
    return ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)
