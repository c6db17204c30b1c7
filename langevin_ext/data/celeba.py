"""CelebA: faces cut to their central 140 x 140 pixels and resized, as in the released NCSN code (arXiv:1907.05600)."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from .common import Request, bad, held_out, limited
from .folder import decode_all, open_pictures
from .pictures import centre_crop

CROP = 140
PARTITION = "list_eval_partition.txt"  # lines "000001.jpg 0"; 0 train, 1 validation, 2 test
INNER = ("img_align_celeba", "img_align_celeba.zip")


def open_celeba(path: Path, request: Request):
    """CelebA's aligned faces: crop 140, antialiased bilinear resize to `size` (default 64).

    The path is the folder or zip of pictures, or a folder with img_align_celeba(.zip) inside. Where
    list_eval_partition.txt lies in it or beside the pictures, train and test are its partitions 0 and 2; else each
    tenth picture is held out.

    Raises:
        ValueError: no picture, an unreadable one, one smaller than 140 x 140, or a broken partition file.
    """
    pictures = next((path / inner for inner in INNER if (path / inner).exists()), path)
    request = replace(request, size=request.size or (64, 64), channels=request.channels or 3)
    with open_pictures(pictures) as (names, read):
        chosen = limited(choose(names, pictures, request.split), request, path)
        return decode_all([names[i] for i in chosen], read, request, pictures, resize=crop_and_resize), None


def choose(names: list[str], pictures: Path, split: str) -> np.ndarray:
    file = next((f for f in (pictures / PARTITION, pictures.parent / PARTITION) if f.is_file()), None)
    if file is None or split == "all":
        return held_out(len(names), split)
    part = read_partition(file)
    wanted = "0" if split == "train" else "2"
    return np.array([i for i, name in enumerate(names) if part.get(PurePosixPath(name).name) == wanted], np.int64)


def read_partition(file: Path) -> dict[str, str]:
    part = {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise bad(file, 'lines like "000001.jpg 0"', f"line {number}: {line[:40]!r}")
        part[fields[0]] = fields[1]
    return part


def crop_and_resize(picture: Image.Image, size: tuple[int, int], where) -> Image.Image:
    if min(picture.size) < CROP:
        raise bad(where, f"at least {CROP} x {CROP} pixels", f"{picture.height} x {picture.width}")
    return centre_crop(picture, CROP, CROP).resize(size[::-1], Image.Resampling.BILINEAR)
