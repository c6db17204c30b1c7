"""What `fuzz` feeds: every parser with its inputs, and inputs that once were failures."""

import gzip
import io
import json

import numpy as np
import torch
from fuzz_inputs import (
    ARRAYS,
    HEADERS,
    MEMBERS,
    NAMES,
    VALUES,
    a_tar,
    an_idx,
    bomb,
    in_directory,
    made_with,
    mutations,
    npy_with_header,
    packed,
    pictures,
    zipped,
)
from hypothesis import strategies as st
from PIL import Image

import langevin_ext
from langevin_ext import _progress, data, models
from langevin_ext._tensor_files import read_tensors, write_tensors
from langevin_ext.commands import image_sets, inpaint
from langevin_ext.metrics import inception, load_statistics
from langevin_ext.samplers import record
from langevin_ext.sharding import arrays
from langevin_ext.sharding.merge import _part
from langevin_ext.training import checkpoint, read_log, read_selection

FIELD = langevin_ext.scores.GaussianField((1, 2, 2))
RUN = {"n": 2, "n_steps_each": 1, "progress": False}
NETWORK = models.MLP((2, 1, 1), (3,), sigmas=[1.0, 0.1])
DEEP = "[" * 100_000


def a_checkpoint():
    return made_with(lambda path: checkpoint.save(path, NETWORK, metadata={"steps": 3, "data": "x"}))


def a_sampling_run():
    return made_with(lambda path: langevin_ext.sample(FIELD, checkpoint=path, **RUN))


def a_pth():
    buffer = io.BytesIO()
    torch.save(models.NCSN((1, 8, 8), 1, [1.0, 0.1]).state_dict(), buffer)
    return buffer.getvalue()


def a_status(path):
    with _progress.Progress(9, "train", "step", shown=False, status=path) as progress:
        progress.update(4, "loss 1.5")


def settings_of_a_run():
    return {
        "model": [{"class": "MLP"}],
        "first": 0,
        "n": 2,
        "seconds": 1.5,
        "diagnostics": [{"mean": 0, "variance": 1}],
    }


def changed(known):
    """The JSON of a dictionary with fields changed, lost and added."""
    changes = st.dictionaries(st.one_of(st.sampled_from(list(known)), st.text(max_size=3)), VALUES, max_size=4)
    lost = st.sets(st.sampled_from(list(known)), max_size=1)
    return st.builds(
        lambda new, gone: json.dumps({k: v for k, v in {**known, **new}.items() if k not in gone}).encode(),
        changes,
        lost,
    )


def from_file(name, read, beside=None):
    """A target that reads a file with the example in it, next to a valid one."""

    def target(folder, content):
        if beside is not None:
            (folder / beside[0]).write_bytes(beside[1])
        path = folder / name
        path.write_bytes(content)
        read(path)

    return target


def resealed(folder, example):
    path = folder / "file.safetensors"
    config, metadata = example
    write = {f"model.{name}": value for name, value in NETWORK.state_dict().items()}
    checkpoint.write(path, write, config, metadata)
    checkpoint.load(path)


def resealed_run(folder, example):
    path = folder / "run"
    path.write_bytes(RUN_BYTES)
    tensors, metadata = read_tensors(path)
    position, settings = (text if text in (DEEP, None) else json.dumps(text) for text in example)
    metadata |= {"position": position} | ({"settings": settings} if settings else {})
    write_tensors(path, tensors, metadata | {"checksum": record._checksum(tensors, metadata)})
    langevin_ext.sample(FIELD, checkpoint=path, **RUN)


def header(folder, example):
    text, body, inside = example
    content = npy_with_header(text, body)
    kind = "npz" if inside else "npy"
    read = from_file(f"file.{kind}", lambda path: data.open_dataset(f"{kind}:{path}"))
    read(folder, zipped([("images.npy", content)]) if inside else content)


def members(folder, content):
    (folder / "inner").mkdir()
    from_file("inner/file.zip", lambda path: data.open_dataset(f"zip:{path}"))(folder, zipped(content))


def scheme(folder, example):
    text, count = example
    fields = [FIELD, langevin_ext.scores.GaussianField((1, 4, 4)), langevin_ext.scores.GaussianField((1, 8, 8))]
    langevin_ext.plan(fields[:count], text, n=1, n_steps_each=1)


def dataset(kind, name):
    return from_file(name, lambda path: data.open_dataset(f"{kind}:{path}", split="all"))


def configurations():
    """What a checkpoint may say of its network."""
    network = NETWORK.config()
    config = st.dictionaries(st.sampled_from([*network, "ngf", "network", "other"]), VALUES, max_size=3)
    classes = st.sampled_from(["MLP", "NCSN", "NCSNv2", "CLDNet", "Classifier", "FSRCNN", "none"])
    configs = st.builds(
        lambda a, b, kind: {**network, **a, **({"class": kind} if b else {})}, config, st.booleans(), classes
    )
    return st.tuples(st.one_of(configs, VALUES), VALUES)


def of_datasets():
    """The targets that read images."""
    npz = [packed(np.savez, images=ARRAYS), packed(np.savez_compressed, x=ARRAYS, y=np.arange(10))]
    npy = [packed(np.save, ARRAYS), packed(np.save, np.zeros((4, 2), np.float32))]
    zips = [zipped([(f"{i}.png", picture) for i, picture in enumerate(pictures())])]
    samples = [SAMPLES, packed(np.savez, images=np.zeros((2, 1, 2, 2), np.float64), seed=3)]
    return {
        "npz": (mutations(npz), dataset("npz", "file.npz")),
        "npy": (mutations(npy), dataset("npy", "file.npy")),
        "vectors": (mutations(npy), dataset("vectors", "file.npy")),
        "npy header": (st.tuples(HEADERS, st.binary(max_size=40), st.booleans()), header),
        "zip": (mutations(zips), dataset("zip", "file.zip")),
        "zip members": (MEMBERS, members),
        "idx": (mutations([an_idx(), gzip.compress(an_idx())]), dataset("mnist", "file-idx3-ubyte")),
        "cifar": (mutations([a_tar(), gzip.decompress(a_tar())]), dataset("cifar10", "file.tar.gz")),
        "mask": (mutations(pictures()), from_file("mask", lambda path: inpaint.known_mask(str(path), 4, 4))),
        "samples": (mutations(samples), from_file("samples.npz", lambda path: image_sets._samples(path, None, None))),
        "samples to merge": (
            mutations(samples),
            from_file("samples.npz", lambda path: list(arrays.Images(path).chunks())),
        ),
    }


def targets():
    """name -> (strategy, function of a folder and an example)."""
    statistics = packed(np.savez, mu=np.zeros(2), sigma=np.eye(2))
    inception_weights = packed(lambda buffer: torch.save({"fc.weight": torch.zeros(2, 2)}, buffer))
    status, settings = made_with(a_status), settings_of_a_run()
    selected = b'{"step": 5, "distance": 1.5, "settings": {}}\n' * 3
    lines = b'{"step": 5, "loss": 1.5, "levels": [1.0, null], "seconds": 0.1}\n' * 3
    of_status = from_file("status.json", lambda path: _progress.describe(_progress.read_status(path)))
    of_run = from_file("run", lambda path: langevin_ext.sample(FIELD, checkpoint=path, **RUN))
    of_folder = from_file("settings.json", lambda path: _part(path.parent), ("samples.npz", SAMPLES))
    of_provenance = from_file(
        "file.json", lambda path: load_statistics(path.with_suffix(".npz")), ("file.npz", statistics)
    )
    return of_datasets() | {
        "checkpoint": (mutations([a_checkpoint()]), from_file("file.safetensors", checkpoint.load)),
        "checkpoint with a true checksum": (configurations(), resealed),
        "sampling run": (mutations([RUN_BYTES]), of_run),
        "sampling run with a true checksum": (st.tuples(VALUES, VALUES), resealed_run),
        "official checkpoint": (mutations([a_pth()]), from_file("file.pth", models.import_ncsn)),
        "inception": (mutations([inception_weights]), from_file("file.pth", inception._read)),
        "statistics": (mutations([statistics]), from_file("file.npz", load_statistics)),
        "provenance": (changed({"sha256": "0", "source": "x"}), of_provenance),
        "settings to merge": (changed(settings), of_folder),
        "log": (mutations([lines]), from_file("log.jsonl", read_log)),
        "selection": (mutations([selected]), from_file("selection.jsonl", read_selection)),
        "status": (st.one_of(mutations([status]), changed(json.loads(status))), of_status),
        "scheme names": (st.tuples(NAMES, st.integers(1, 3)), scheme),
    }


DEEP_READERS = ("log", "selection", "status", "provenance", "settings to merge")  # of JSON
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"  # a program
SAMPLES = packed(np.savez_compressed, images=np.zeros((2, 1, 2, 2), np.float32), seed=3)
RUN_BYTES = a_sampling_run()
TARGETS = targets()


def found():
    """(target, input) of what once was a failure, or would be one if sizes were not checked before allocation."""
    arrays_ = zipped([(name, b"") for name in ("images.npy", "mu.npy", "sigma.npy")])
    encrypted, versioned, method = (in_directory(arrays_, *at) for at in ((8, b"\1"), (6, b"\x7f"), (10, b"\x63")))
    longer = in_directory(zipped([("a.png", pictures()[0])]), 20, b"\0\0\0\x40")
    wide = {**NETWORK.config(), "hidden": [2**40]}
    huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"
    wide_picture = Image.new("1", (20_000, 20_000))
    picture = io.BytesIO()
    wide_picture.save(picture, "PNG")
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
        ("statistics", encrypted),
        ("statistics", versioned),
        ("statistics", method),
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
        *((name, DEEP.encode() + b"\n\n") for name in DEEP_READERS),
        ("sampling run with a true checksum", (DEEP, None)),
        ("settings to merge", json.dumps({**settings_of_a_run(), "n": float("inf")}).encode()),
        ("samples", zipped([("images.npy", npy_with_header(huge.replace("<f8", "<f4"), b""))])),
        ("samples", encrypted),
        ("mask", picture.getvalue()),
        ("mask", POSTSCRIPT),
        ("zip", longer),
        ("zip", bomb("a.png")),
        ("npz", bomb("images.npy")),
        ("samples", bomb("images.npy")),
        ("samples to merge", bomb("images.npy")),
        ("statistics", bomb("mu.npy")),
        ("inception", b"\x80\x02cos\nsystem\n."),
        ("inception", b"\x80\x02a."),
    ]
