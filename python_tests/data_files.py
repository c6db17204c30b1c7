"""Small real files for the tests of the data sources, and the check of their messages."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from langevin_ext.data import open_dataset

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (23, 6, 4), dtype=np.uint8)  # (N, H, W)
COLOUR = RNG.integers(0, 256, (23, 6, 4, 3), dtype=np.uint8)  # (N, H, W, 3)
NCHW = torch.from_numpy(COLOUR.transpose(0, 3, 1, 2).copy())
TRAIN = [i for i in range(23) if i not in (9, 19)]  # each tenth image is held out


def png(pixels, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def write(root, files: dict[str, bytes]):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refuses(spec, message, error=ValueError, **options):
    """The message must name the source, and be one line."""
    with pytest.raises(error, match=message) as caught:
        open_dataset(spec, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("open_dataset: ")
