"""CIFAR-10's binary version: records of one label byte and the red, green and blue planes of 32x32 bytes."""

import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from .common import Request, bad, check_bytes, gather, limited, read_up_to

RECORD = 1 + 3 * 32 * 32
INNER = "cifar-10-batches-bin"
SUFFIXES = (".tar.gz", ".tgz", ".tar")
BATCH = {"train": re.compile(r"data_batch_\d+\.bin"), "test": re.compile(r"test_batch\.bin")}
PICKLED = re.compile(r"data_batch_\d+|test_batch")


def is_cifar10(path: Path) -> bool:
    if path.is_dir():
        names = [file.name.removesuffix(".bin") for file in path.glob("*_batch*")]
        return (path / INNER).is_dir() or any(PICKLED.fullmatch(name) for name in names)
    return path.name.endswith(SUFFIXES)


def open_cifar10(path: Path, request: Request):
    """A folder with data_batch_*.bin and test_batch.bin, or cifar-10-binary.tar.gz, which is read in place.

    `train` is the data batches in the order of their names, `test` the test batch; labels are 0 to 9.

    Raises:
        ValueError: a batch is missing or truncated, holds a label above 9, or is of the pickled Python version.
    """
    parts = ("train", "test") if request.split == "all" else (request.split,)
    batches = read_folder(path, parts) if path.is_dir() else read_tar(path, parts)
    for part in parts:
        if not any(BATCH[part].fullmatch(name) for name in batches):
            name = {"train": "data_batch_1.bin", "test": "test_batch.bin"}[part]
            raise bad(path, f"CIFAR-10's binary version with {name}", "no such file")
    check_bytes(sum(map(len, batches.values())), path)
    records = np.concatenate([parse(batches[name], f"{path}/{name}") for name in sorted(batches)])
    chosen = limited(np.arange(len(records)), request, path)
    images = gather(records[:, 1:].reshape(-1, 3, 32, 32), chosen, request, path)
    return images, records[chosen, 0].astype(np.int64)


def parse(content: bytes, where) -> np.ndarray:
    """uint8 (N, 3073) records."""
    if len(content) == 0 or len(content) % RECORD:
        raise bad(where, f"a whole number of {RECORD}-byte records", f"{len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise bad(where, "labels from 0 to 9", f"{records[:, 0].max()}")
    return records


def wanted(name: str, parts, path) -> bool:
    if PICKLED.fullmatch(name):
        raise bad(path, "CIFAR-10's binary version (cifar-10-binary.tar.gz)", f"the pickled Python version ({name})")
    return any(BATCH[part].fullmatch(name) for part in parts)


def read_folder(path: Path, parts) -> dict[str, bytes]:
    folder = path / INNER if (path / INNER).is_dir() else path
    files = [file for file in sorted(folder.iterdir()) if wanted(file.name, parts, path)]
    check_bytes(sum(file.stat().st_size for file in files), path)
    return {file.name: file.read_bytes() for file in files}


def read_tar(path: Path, parts) -> dict[str, bytes]:
    batches = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and wanted(name, parts, path):
                    check_bytes(member.size, f"{path}/{name}")
                    batches[name] = read_up_to(archive.extractfile(member), member.size)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise bad(path, "an intact tar archive of CIFAR-10's binary version", error) from error
    return batches
