"""The array `images` of npz files, read and written in pieces of a few megabytes, never whole."""

import contextlib
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from .._files import atomic_path

CHUNK = 2**22  # bytes
MEMBER = "images.npy"
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError)


class Images:
    """The images (n, C, H, W) of one npz file.

    Args:
        path: the file.
        function: the public function, for messages.
        advice: what to do if the file is damaged.

    Attributes:
        shape, dtype: of the array.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no float images.
    """

    def __init__(self, path, function="merge", advice="make it anew"):
        self.path, self.function, self.advice = Path(path), function, advice
        if not self.path.is_file():
            raise FileNotFoundError(f"{function}: file must exist, got {self.path}")
        with self._member() as (stream, size):
            self.shape, self.dtype = self._header(stream)
            length = stream.tell() + math.prod(self.shape) * self.dtype.itemsize
        if len(self.shape) != 4 or self.dtype not in (np.float32, np.float64) or length != size:
            raise ValueError(
                f"{function}: {self.path} must hold float images (n, C, H, W), got {self.dtype} {self.shape} in"
                f" {size} bytes"
            )

    def chunks(self):
        """The bytes of the array, in order; raises ValueError where they do not match their checksum."""
        with self._member() as (stream, _):
            self._header(stream)
            while chunk := stream.read(CHUNK):
                yield chunk

    def head(self, count) -> torch.Tensor:
        """The first `count` images."""
        count = min(count, self.shape[0])
        with self._member() as (stream, _):
            self._header(stream)
            content = stream.read(count * math.prod(self.shape[1:]) * self.dtype.itemsize)
        return torch.from_numpy(np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:]).copy())

    @contextlib.contextmanager
    def _member(self):
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(MEMBER) as stream:
                yield stream, archive.getinfo(MEMBER).file_size
        except BROKEN as error:
            raise ValueError(f"{self.function}: {self.path} is damaged, {self.advice}: {error}") from error

    @staticmethod
    def _header(stream):
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not an array of this package")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if fortran or dtype.hasobject:
            raise ValueError("an array in another order, or of objects")
        return shape, dtype


def write_images(path, parts, **others) -> tuple[int, ...]:
    """Writes samples.npz: the images of all parts one after the other, compressed, and small arrays.

    Args:
        path: the file, written whole or not at all.
        parts: list of `Images` of one shape and dtype.
        others: arrays or numbers beside `images`.

    Returns:
        The shape of `images`.

    Raises:
        ValueError: the parts differ in shape or dtype, or one is damaged.
    """
    first = parts[0]
    for part in parts:
        if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(
                f"{first.function}: images must be of one shape and type, got {first.dtype} {first.shape[1:]} in"
                f" {first.path} and {part.dtype} {part.shape[1:]} in {part.path}"
            )
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(MEMBER, "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for part in parts:
                for chunk in part.chunks():
                    stream.write(chunk)
        for name, value in others.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asanyarray(value), allow_pickle=False)
    return shape
