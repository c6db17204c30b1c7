"""Feeds broken files and names to every parser, in a process of its own with little memory and a clock.

    python fuzz.py found                        tries what once was a failure
    python fuzz.py rounds EXAMPLES SEED         tries so many inputs of every target
    python fuzz.py for SECONDS SEED TARGET      prints the number of inputs tried

A failure ends it with status 1 and the input.

A parser may return, or raise ValueError or OSError in one sentence. Anything else is a failure: another exception, a
crash, more than `MEMORY` bytes beyond what the imports take, or an input that takes longer than `PATIENCE`.
"""

import faulthandler
import gzip
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import langevin_ext
from langevin_ext import data, models
from langevin_ext._tensor_files import read_tensors, write_tensors
from langevin_ext.metrics import load_statistics
from langevin_ext.samplers import record
from langevin_ext.training import checkpoint, read_log

MEMORY = 2**30
PATIENCE = 20  # seconds
EXAMPLES = 50  # of one round; each round has its seed
FIELD = langevin_ext.scores.GaussianField((1, 2, 2))
RUN = {"n": 2, "n_steps_each": 1, "progress": False}
HUGE = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
NETWORK = models.MLP((2, 1, 1), (3,), sigmas=[1.0, 0.1])


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


def a_checkpoint():
    return made_with(lambda path: checkpoint.save(path, NETWORK, metadata={"steps": 3, "data": "x"}))


def a_sampling_run():
    return made_with(lambda path: langevin_ext.sample(FIELD, checkpoint=path, **RUN))


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
            archive.writestr(name, content)
    return buffer.getvalue()


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


def a_pth():
    buffer = io.BytesIO()
    torch.save(models.NCSN((1, 8, 8), 1, [1.0, 0.1]).state_dict(), buffer)
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


def targets():
    """name -> (strategy, function of a folder and an example)."""

    def from_file(name, read):
        def target(folder, content):
            path = folder / name
            path.write_bytes(content)
            read(path)

        return target

    def resealed(folder, config):
        path = folder / "file.safetensors"
        config, metadata = config
        write = {f"model.{name}": value for name, value in NETWORK.state_dict().items()}
        checkpoint.write(path, write, config, metadata)
        checkpoint.load(path)

    def resealed_run(folder, texts):
        path = folder / "run"
        path.write_bytes(RUN_BYTES)
        tensors, metadata = read_tensors(path)
        position, settings_ = texts
        metadata |= {"position": json.dumps(position)} | ({"settings": json.dumps(settings_)} if settings_ else {})
        write_tensors(path, tensors, metadata | {"checksum": record._checksum(tensors, metadata)})
        langevin_ext.sample(FIELD, checkpoint=path, **RUN)

    def header(folder, example):
        text, body, inside = example
        content = npy_with_header(text, body)
        kind = "npz" if inside else "npy"
        from_file("file." + kind, lambda path: data.open_dataset(f"{kind}:{path}"))(
            folder, zipped([("images.npy", content)]) if inside else content
        )

    def members(folder, content):
        (folder / "inner").mkdir()
        from_file("inner/file.zip", lambda path: data.open_dataset(f"zip:{path}"))(folder, zipped(content))

    def scheme(folder, example):
        text, count = example
        fields = [FIELD, langevin_ext.scores.GaussianField((1, 4, 4)), langevin_ext.scores.GaussianField((1, 8, 8))]
        langevin_ext.plan(fields[:count], text, n=1, n_steps_each=1)

    opened = {
        kind: from_file(name, lambda path, kind=kind: data.open_dataset(f"{kind}:{path}", split="all"))
        for kind, name in (
            ("npz", "file.npz"),
            ("npy", "file.npy"),
            ("vectors", "file.npy"),
            ("zip", "file.zip"),
            ("mnist", "file-idx3-ubyte"),
            ("cifar10", "file.tar.gz"),
        )
    }
    network = {name: value for name, value in NETWORK.config().items()}
    config = st.dictionaries(st.sampled_from([*network, "ngf", "network", "other"]), VALUES, max_size=3)
    classes = st.sampled_from(["MLP", "NCSN", "NCSNv2", "CLDNet", "Classifier", "FSRCNN", "none"])
    configs = st.builds(
        lambda a, b, kind: {**network, **a, **({"class": kind} if b else {})}, config, st.booleans(), classes
    )
    npz = [packed(np.savez, images=ARRAYS), packed(np.savez_compressed, x=ARRAYS, y=np.arange(10))]
    npy = [packed(np.save, ARRAYS), packed(np.save, np.zeros((4, 2), np.float32))]
    statistics = [packed(np.savez, mu=np.zeros(2), sigma=np.eye(2))]
    lines = b'{"step": 5, "loss": 1.5, "levels": [1.0, null], "seconds": 0.1}\n' * 3
    return {
        "checkpoint": (mutations([a_checkpoint()]), from_file("file.safetensors", checkpoint.load)),
        "checkpoint with a true checksum": (st.tuples(st.one_of(configs, VALUES), VALUES), resealed),
        "sampling run": (
            mutations([RUN_BYTES]),
            from_file("run", lambda path: langevin_ext.sample(FIELD, checkpoint=path, **RUN)),
        ),
        "sampling run with a true checksum": (st.tuples(VALUES, VALUES), resealed_run),
        "npz": (mutations(npz), opened["npz"]),
        "npy": (mutations(npy), opened["npy"]),
        "vectors": (mutations(npy), opened["vectors"]),
        "npy header": (st.tuples(HEADERS, st.binary(max_size=40), st.booleans()), header),
        "zip": (mutations([zipped([(f"{i}.png", p) for i, p in enumerate(pictures())])]), opened["zip"]),
        "zip members": (MEMBERS, members),
        "idx": (mutations([an_idx(), gzip.compress(an_idx())]), opened["mnist"]),
        "cifar": (mutations([a_tar(), gzip.decompress(a_tar())]), opened["cifar10"]),
        "official checkpoint": (mutations([a_pth()]), from_file("file.pth", models.import_ncsn)),
        "statistics": (mutations(statistics), from_file("file.npz", load_statistics)),
        "log": (mutations([lines]), from_file("log.jsonl", read_log)),
        "scheme names": (st.tuples(NAMES, st.integers(1, 3)), scheme),
    }


RUN_BYTES = a_sampling_run()
TARGETS = targets()


def attempt(name, example):
    """Gives one example to a target; raises AssertionError unless it returns or raises what it may."""
    with tempfile.TemporaryDirectory() as outer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(outer) / "a" / "b"
        folder.mkdir(parents=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            TARGETS[name][1](folder, example)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error), f"a message of several lines: {error}"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        above = [path.name for path in (Path(outer), folder.parent) for path in path.iterdir()]
        assert above == ["a", "b"], f"files outside of the folder: {above}"


def limit_memory():
    """Leaves `MEMORY` bytes of address space beyond what is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, resource.RLIM_INFINITY))


def run(name, seconds, first, examples=EXAMPLES):
    """Tries inputs for so long, at least one round; returns their number."""
    tried, end = 0, time.monotonic() + seconds
    while tried == 0 or time.monotonic() < end:

        @seed(first + tried)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(TARGETS[name][0])
        def tries(example):
            nonlocal tried
            tried += 1
            attempt(name, example)

        tries()
    return tried


def found():
    """(target, input) of what once was a failure, or would be one if sizes were not checked before allocation."""
    encrypted, versioned, method = (bytearray(zipped([("mu.npy", b""), ("sigma.npy", b"")])) for _ in range(3))
    for content, offset, value in ((encrypted, 8, 1), (versioned, 6, 127), (method, 10, 99)):
        content[content.index(b"PK\x01\x02") + offset] = value
    wide = {**NETWORK.config(), "hidden": [2**40]}
    huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    bomb = Image.new("1", (20_000, 20_000))
    picture = io.BytesIO()
    bomb.save(picture, "PNG")
    state = {"begin_conv.weight": torch.zeros(1).expand(2**20, 1, 3, 3), "normalizer.embed.weight": torch.zeros(2, 2)}
    pth = io.BytesIO()
    torch.save(state, pth)
    return [
        ("checkpoint with a true checksum", ({**NETWORK.config(), "class": []}, {})),
        ("checkpoint with a true checksum", ([], {})),
        ("checkpoint with a true checksum", (NETWORK.config(), 3)),
        ("checkpoint with a true checksum", (wide, {})),
        ("checkpoint with a true checksum", ({**wide, "hidden": [2**62, 2**62]}, {})),
        ("checkpoint with a true checksum", ({"class": "NCSN", "shape": [1, 8, 8], "ngf": 2**20}, {})),
        ("sampling run with a true checksum", ({"batch": "x"}, None)),
        ("statistics", bytes(encrypted)),
        ("statistics", bytes(versioned)),
        ("statistics", bytes(method)),
        ("statistics", zipped([(name, npy_with_header(huge, b"")) for name in ("mu.npy", "sigma.npy")])),
        ("npy header", (huge, bytes(40), True)),
        ("npy header", (huge, bytes(40), False)),
        ("npy header", (" " * 60_000, b"", True)),
        ("idx", b"\x00\x00\x08\x03" + b"\xff" * 12),
        ("idx", gzip.compress(b"\x00\x00\x08\x03" + b"\x7f\x00" * 6)),
        ("zip members", [("a.png", picture.getvalue())]),
        ("zip members", [("../../escape.png", pictures()[0]), ("/absolute.png", pictures()[0])]),
        ("official checkpoint", pth.getvalue()),
        ("scheme names", ("R1[1:" + "9" * 5000 + "]", 2)),
        ("log", b"[" * 100_000 + b"\n\n"),
    ]


def main(how, *arguments):
    torch.set_num_threads(1)
    limit_memory()
    if how == "found":
        for name, example in found():
            attempt(name, example)
        print(len(found()))
    elif how == "rounds":
        examples, first = map(int, arguments)
        print(sum(run(name, 0, first, examples) for name in TARGETS))
    else:
        seconds, first, *name = arguments
        print(run(" ".join(name), float(seconds), int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
