"""Folders and zip archives of pictures; an archive is read in place, without extraction."""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from .common import BAD_ZIP, Request, allocate, bad, held_out, limited, read_up_to, to_chw
from .pictures import EXTENSIONS, bombs_are_errors, convert, decode, fit

MAX_PICTURE_BYTES = 256 * 2**20  # of one packed file in an archive
MAX_THREADS = 16
CHUNK = 512  # pictures handed to the decoding threads at a time


def open_folder(path: Path, request: Request):
    """Pictures below a folder or in a zip, in the order of their names, hidden files left out.

    Where the pictures lie in `train` and `test` folders these are the splits, else each tenth picture is held out.
    Where all lie in two or more subfolders (below the split) the labels number the subfolders in the order of names.
    Without `size` all pictures must have one size; without `channels` the first picture decides on grey or colour.

    Raises:
        ValueError: no picture, an unreadable one, or pictures of different sizes or kinds; names the file.
    """
    with open_pictures(path) as (names, read):
        parts = split_names([inner_parts(name, names) for name in names], request.split)
        labels = class_labels([below for _, below in parts])
        in_split = [i for i, (inside, _) in enumerate(parts) if inside]
        chosen = limited(np.array(in_split, np.int64), request, path)
        images = decode_all([names[i] for i in chosen], read, request, path)
    return images, None if labels is None else labels[chosen]


@contextmanager
def open_pictures(path: Path):
    """Yields (names, read): the sorted names of all pictures, and a function from a name to a path or a stream."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if is_picture(file.relative_to(path))]
        yield nonempty(names, path), lambda name: path / name
        return
    try:
        archive = zipfile.ZipFile(path)
    except BAD_ZIP as error:
        raise bad(path, "a folder or a zip archive of pictures", error) from error
    with archive:
        names = [info.filename for info in archive.infolist() if is_picture(PurePosixPath(info.filename))]
        yield nonempty(names, path), lambda name: read_member(archive, name, path)


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> BytesIO:
    size = archive.getinfo(name).file_size
    if size > MAX_PICTURE_BYTES:
        raise bad(f"{path}/{name}", f"a picture file of at most {MAX_PICTURE_BYTES} bytes", f"{size} bytes")
    try:
        with archive.open(name) as stream:  # archive.read would take as much as the compressed data give
            return BytesIO(read_up_to(stream, size))
    except BAD_ZIP as error:
        raise bad(f"{path}/{name}", "an intact, unencrypted archive member", error) from error


def is_picture(name) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in EXTENSIONS and not hidden


def nonempty(names: list[str], path) -> list[str]:
    if not names:
        raise bad(path, f"pictures ({' '.join(e[1:] for e in EXTENSIONS)})", "none")
    return sorted(names)


def inner_parts(name: str, names: list[str]) -> tuple[str, ...]:
    """The folders above a picture, without those that all pictures share (names are sorted)."""
    shared = os.path.commonprefix([PurePosixPath(names[0]).parts[:-1], PurePosixPath(names[-1]).parts[:-1]])
    return PurePosixPath(name).parts[len(shared) : -1]


def split_names(folders: list[tuple[str, ...]], split: str) -> list[tuple[bool, tuple[str, ...]]]:
    """For each picture, whether it is in the split, and its folders below the split's own."""
    tops = {parts[0] if parts else "" for parts in folders}
    if {"train", "test"} <= tops:
        allowed = ("train", "test") if split == "all" else (split,)
        return [(bool(parts) and parts[0] in allowed, parts[1:]) for parts in folders]
    inside = np.isin(np.arange(len(folders)), held_out(len(folders), split))
    return list(zip(inside.tolist(), folders, strict=True))


def class_labels(folders: list[tuple[str, ...]]) -> np.ndarray | None:
    """int64 (N,) numbers of the first folders in the order of names, or None unless there are two or more."""
    tops = [parts[0] if parts else None for parts in folders]
    if None in tops or len(set(tops)) < 2:
        return None
    return np.unique(np.array(tops), return_inverse=True)[1].astype(np.int64)


def fit_any(picture, size, _where):
    return fit(picture, size)


def decode_all(names, read, request: Request, path, resize=fit_any) -> np.ndarray:
    """uint8 (N, C, H, W) of the named pictures, decoded by threads into their places.

    `resize(picture, (h, w), where)` brings each to its size, and may refuse it in the name of `where`.
    """
    with bombs_are_errors():
        first = load(names[0], read, path)
        channels = request.channels or (1 if first.mode == "L" else 3)
        size = request.size or (first.height, first.width)
        images = allocate((len(names), channels, *size), path)

        def place(i):
            picture, where = load(names[i], read, path), f"{path}/{names[i]}"
            check_alike(picture, channels, size, request, where)
            images[i] = to_chw(resize(convert(picture, channels), size, where))

        with (
            ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool,
            tqdm(total=len(names), desc=Path(path).name, unit="image", disable=None, leave=False) as bar,
        ):
            for start in range(0, len(names), CHUNK):
                for _ in pool.map(place, range(start, min(start + CHUNK, len(names)))):
                    bar.update()
    return images


def load(name: str, read, path):
    file = read(name)
    try:
        return decode(file)
    except ValueError as error:
        raise bad(f"{path}/{name}", "a readable picture", error) from error


def check_alike(picture, channels: int, size: tuple[int, int], request: Request, where) -> None:
    if request.channels is None and channels == 1 and picture.mode != "L":
        raise bad(where, "a grey picture like the first (give channels=1 or channels=3)", "a coloured one")
    if request.size is None and (picture.height, picture.width) != size:
        expected = f"{size[0]} x {size[1]} pixels (height x width) like the first picture (give size=)"
        raise bad(where, expected, f"{picture.height} x {picture.width}")
