"""Strategies for `fuzz`: small valid files of every format, changed and broken, and names and values of every kind."""

import io
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

HUGE = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def mutations(seeds):
    """Valid files with bytes changed, numbers set to the largest, pieces cut out, doubled or swapped; and noise."""
    place = st.floats(0, 1, exclude_max=True)
    change = st.one_of(
        st.tuples(st.just("bit"), place, st.integers(0, 7)),
        st.tuples(st.just("bytes"), place, st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("number"), place, st.sampled_from(HUGE), st.sampled_from([1, 2, 4, 8]), st.booleans()),
        st.tuples(st.just("cut"), place, st.integers(1, 200)),
        st.tuples(st.just("double"), place, st.integers(1, 200)),
        st.tuples(st.just("end"), place),
    )

    def apply(content, changes):
        content = bytearray(content)
        for kind, where, *more in changes:
            at = int(where * len(content))
            if kind == "bit" and content:
                content[at] ^= 1 << more[0]
            elif kind == "bytes":
                content[at : at + len(more[0])] = more[0]
            elif kind == "number":
                value, size, big = more
                content[at : at + size] = (value % 256**size).to_bytes(size, "big" if big else "little")
            elif kind == "cut":
                del content[at : at + more[0]]
            elif kind == "double":
                content[at:at] = content[at : at + more[0]]
            elif kind == "end":
                del content[at:]
        return bytes(content)

    changed = st.builds(apply, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=6))
    return st.one_of(changed, changed, changed, st.binary(max_size=300))


NUMBERS = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([2**31, 2**40, 2**63, 10**30, -1, 0]),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def made_with(writer, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        writer(path, *arguments)
        return path.read_bytes()


def packed(method, *arrays, **named):
    buffer = io.BytesIO()
    method(buffer, *arrays, **named)
    return buffer.getvalue()


def pictures():
    image = Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3))
    found = []
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found.append(buffer.getvalue())
    grey = io.BytesIO()
    image.convert("LA").save(grey, "PNG")
    return [*found, grey.getvalue()]


def zipped(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)  # whose date is always the same
    return buffer.getvalue()


def in_directory(archive, offset, value):
    """A zip with a number, as bytes, at an offset in each entry of its directory."""
    archive = bytearray(archive)
    for start in (i for i in range(len(archive)) if archive[i : i + 4] == b"PK\x01\x02"):
        archive[start + offset : start + offset + len(value)] = value
    return bytes(archive)


def bomb(name):
    """A zip with a member of 1.5 GiB whose size is said to be 100 bytes."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)  # after which it starts anew
    archive = zipped([(name, 96 * block + packer.flush())], zipfile.ZIP_STORED)
    return in_directory(in_directory(archive, 10, b"\x08\x00"), 24, b"\x64\x00\x00\x00")


def npy_with_header(text, body):
    text = text.encode("latin1", "replace") + b"\n"
    return b"\x93NUMPY\x01\x00" + (len(text) % 65536).to_bytes(2, "little") + text + body


def an_idx():
    return b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (10, 3, 3)) + bytes(90)


def a_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("data_batch_1.bin", "test_batch.bin"):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = 3073
            archive.addfile(info, io.BytesIO(bytes(3073)))
    return buffer.getvalue()


ARRAYS = np.arange(90, dtype=np.uint8).reshape(10, 3, 3)
HEADERS = st.builds(
    lambda descr, order, shape: f"{{'descr': {descr!r}, 'fortran_order': {order!r}, 'shape': {shape!r}, }}",
    st.one_of(st.sampled_from(["|u1", "<f4", "|O", "<U9", "|V0", "<M8[s]", ">f16", "x"]), VALUES),
    st.one_of(st.booleans(), VALUES),
    st.one_of(st.lists(NUMBERS, max_size=5).map(tuple), VALUES),
)
MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a.png", "b/c.jpg", "../../escape.png", "/absolute.png", "images.npy", "x\x00.png", ".h.png"]),
        mutations(pictures()),
    ),
    max_size=3,
)
WORDS = st.sampled_from(
    "LRS HRS up - R0[1:2] R1[1:10] R2[3:4] R0 [ ] : 1 9 0 -1 99999999999 annealed langevin é ²".split()
)
NAMES = st.one_of(
    st.lists(WORDS, max_size=9).map("".join), st.lists(WORDS, max_size=6).map("-".join), st.text(max_size=30)
)
