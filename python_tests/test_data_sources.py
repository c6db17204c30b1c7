"""Arrays, MNIST and CIFAR-10 on tiny real files: exact pixels, and one message for each way to be broken."""

import gzip
import re
import struct

import numpy as np
import pytest
import torch
from data_files import COLOUR, GREY, NCHW, RNG, TRAIN, refuses, write, write_tar, write_zip

from langevin_ext.data import common, open_dataset

# Arrays


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_npy_layouts(tmp_path, layout, fortran):
    array, expected = {
        "NHWC": (COLOUR, NCHW),
        "NCHW": (NCHW.numpy(), NCHW),
        "NHW": (GREY, torch.from_numpy(GREY[:, None])),
    }[layout]
    np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else array)
    data = open_dataset(tmp_path / "a.npy")
    assert torch.equal(data.images, expected[TRAIN]) and torch.equal(data.split("test").images, expected[[9, 19]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_npy_floats_are_rounded(tmp_path, dtype):
    np.save(tmp_path / "a.npy", (GREY / 255).astype(dtype))
    images = open_dataset(tmp_path / "a.npy", split="all").images[:, 0].numpy()
    assert (images == GREY).all()
    np.save(tmp_path / "b.npy", np.array([[[0.0, 0.49 / 255, 0.51 / 255, 1.0]]]))
    assert open_dataset(tmp_path / "b.npy").images.flatten().tolist() == [0, 0, 1, 255]


def test_ambiguous_arrays_can_be_forced(tmp_path):
    both = RNG.integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", both)
    refuses(tmp_path / "a.npy", r"a\.npy: .*force it with nchw:PATH or nhwc:PATH\), got \(2, 3, 5, 3\), both sides")
    assert torch.equal(open_dataset(f"nchw:{tmp_path}/a.npy").images, torch.from_numpy(both))
    assert torch.equal(open_dataset(f"nhwc:{tmp_path}/a.npy").images, torch.from_numpy(both).permute(0, 3, 1, 2))
    five = RNG.integers(0, 256, (2, 5, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "b.npz", five)
    refuses(tmp_path / "b.npz", r"b\.npz\[arr_0\]: .*got \(2, 5, 4, 4\), neither side is 1 or 3 channels")
    assert torch.equal(open_dataset(f"nchw:{tmp_path}/b.npz").images, torch.from_numpy(five))
    refuses(f"nchw:{tmp_path}/b.npz", "expected 1 or 3 channels, which alone can be resized .*, got 5", size=2)


def test_npz_keys_labels_and_splits(tmp_path):
    labels = np.arange(23, dtype=np.uint8)[:, None]
    np.savez_compressed(tmp_path / "a.npz", images=np.asfortranarray(COLOUR), labels=labels, settings=np.zeros(3))
    data = open_dataset(tmp_path / "a.npz")
    assert torch.equal(data.images, NCHW[TRAIN]) and data.labels.tolist() == TRAIN
    np.savez(tmp_path / "b.npz", x_train=GREY[:3], y_train=[1, 2, 3], x_test=GREY[3:5], y_test=[4, 5])
    data = open_dataset(tmp_path / "b.npz")
    assert (data.images[:, 0].numpy() == GREY[:3]).all() and data.labels.tolist() == [1, 2, 3]
    assert (data.split("test").images[:, 0].numpy() == GREY[3:5]).all() and data.split("test").labels.tolist() == [4, 5]
    everything = open_dataset(tmp_path / "b.npz", split="all", limit=4)
    assert (everything.images[:, 0].numpy() == GREY[:4]).all() and everything.labels.tolist() == [1, 2, 3, 4]


def test_memory_map_in_blocks_equals_the_array(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "BLOCK", 20)  # four images a block, and a last short one
    np.save(tmp_path / "a.npy", COLOUR)
    assert torch.equal(open_dataset(tmp_path / "a.npy").images, NCHW[TRAIN])


def test_arrays_refused(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was executed",))

    def npy(name, array, **options):
        np.save(tmp_path / name, array, **options)
        return tmp_path / name

    whole = npy("whole.npy", GREY).read_bytes()
    write(tmp_path, {"cut.npy": whole[:-1], "head.npy": whole[:40], "text.npy": b"hello", "empty.npy": b""})
    refuses(tmp_path / "cut.npy", r"cut\.npy: expected a whole \.npy file without objects, got")
    refuses(tmp_path / "head.npy", r"head\.npy: expected a whole \.npy file without objects, got")
    refuses(tmp_path / "text.npy", r"text\.npy: expected a \.npy or \.npz file, got neither format's first bytes")
    refuses(tmp_path / "empty.npy", r"empty\.npy: expected a \.npy or \.npz file")
    refuses(f"npy:{tmp_path}", r"expected a \.npy or \.npz file, got a folder")
    evil = np.array([Evil()], dtype=object)
    refuses(npy("evil.npy", evil, allow_pickle=True), r"evil\.npy: expected a whole \.npy file without objects")
    np.savez(tmp_path / "evil.npz", images=evil)
    refuses(tmp_path / "evil.npz", r"evil\.npz\[images\]: expected a whole array without objects, got Python objects")
    refuses(npy("none.npy", GREY[:0]), r"none\.npy: expected at least one image, got shape \(0, 6, 4\)")
    refuses(npy("flat.npy", GREY[0]), r"flat\.npy: expected images \(N, H, W\), .* got shape \(6, 4\)")
    refuses(npy("int.npy", GREY.astype(int)), r"int\.npy: expected uint8, or floats in \[0, 1\], got int64")
    refuses(npy("float.npy", GREY * 1.0), r"float\.npy: expected uint8, or floats in .*, got floats from 0 to 255")
    refuses(npy("nan.npy", GREY * np.nan), r"nan\.npy: .* got floats from nan to nan")
    np.savez(tmp_path / "keys.npz", a=GREY, b=GREY)
    refuses(tmp_path / "keys.npz", r"keys\.npz: expected an array named images, .*, got \['a', 'b'\]")
    np.savez(tmp_path / "labels.npz", images=GREY, labels=[1, 2])
    refuses(tmp_path / "labels.npz", r"labels\.npz\[images\]: expected 23 integer labels, got int64 \(2,\)")
    np.savez(tmp_path / "sizes.npz", x_train=GREY, x_test=GREY[:, :4])
    refuses(tmp_path / "sizes.npz", r"sizes\.npz: expected train and test images of one shape .give size=", split="all")
    archive = (tmp_path / "labels.npz").read_bytes()
    write(tmp_path, {"cut.npz": archive[:-40]})
    refuses(tmp_path / "cut.npz", r"cut\.npz: expected an intact \.npz archive")
    refuses(write_zip(tmp_path / "short.npz", {"images.npy": whole[:-1]}), r"short\.npz\[images\]: .*got 551 bytes for")
    monkeypatch.setattr(common, "MAX_BYTES", 500)
    refuses(tmp_path / "whole.npy", r"whole\.npy: expected at most .*, got 552 bytes", split="all")
    refuses(tmp_path / "sizes.npz", r"sizes\.npz\[x_train\]: expected at most .*, got 680 bytes")


# MNIST


def idx(array, magic=None) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic or 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-", "."])
def test_mnist_folder_and_file(tmp_path, gz, dash):
    labels = np.arange(23, dtype=np.uint8) % 10
    pack = gzip.compress if gz else bytes
    files = {
        f"train-images{dash}idx3-ubyte{gz}": pack(idx(GREY[:20])),
        f"train-labels{dash}idx1-ubyte{gz}": pack(idx(labels[:20])),
        f"t10k-images{dash}idx3-ubyte{gz}": pack(idx(GREY[20:])),
        f"t10k-labels{dash}idx1-ubyte{gz}": pack(idx(labels[20:])),
    }
    data = open_dataset(write(tmp_path, files))
    assert (data.images[:, 0].numpy() == GREY[:20]).all() and data.labels.tolist() == labels[:20].tolist()
    test = data.split("test")
    assert (test.images[:, 0].numpy() == GREY[20:]).all() and test.labels.tolist() == labels[20:].tolist()
    assert (data.split("all").images[:, 0].numpy() == GREY).all()
    one = open_dataset(tmp_path / f"train-images{dash}idx3-ubyte{gz}", split="test")
    assert (one.images[:, 0].numpy() == GREY[[9, 19]]).all() and one.labels.tolist() == [9, 9]


def test_mnist_refused(tmp_path):
    name, whole = "train-images-idx3-ubyte", idx(GREY)
    path = tmp_path / name

    def with_content(content):
        path.write_bytes(content)
        return path

    refuses(with_content(whole[:-1]), r"idx3-ubyte: expected 552 bytes of data for shape \(23, 6, 4\), got at most 551")
    refuses(with_content(whole + b"x"), r"idx3-ubyte: expected 552 bytes of data for shape \(23, 6, 4\), got more")
    refuses(with_content(gzip.compress(whole[:-1])), r"expected 552 bytes of data .*, got fewer")
    refuses(with_content(gzip.compress(whole)[:-20]), r"idx3-ubyte: expected an intact gzip file, got")
    refuses(with_content(idx(GREY, 0x801)), r"expected an idx3 file with magic 0x00000803, got first bytes 0x00000801")
    refuses(with_content(b""), r"expected an idx3 file with magic 0x00000803, got first bytes 0x")
    huge = struct.pack(">4I", 0x803, 2**31, 2**31, 2**31)
    refuses(with_content(huge + b"x" * 99), r"expected 9903520314283042199192993792 bytes of data .*, got at most 99")
    refuses(with_content(gzip.compress(huge + bytes(99))), r"expected 9903520314283042199192993792 bytes")
    refuses(with_content(idx(GREY[:0])), r"idx3-ubyte: expected data, got at most 0")
    refuses(f"mnist:{tmp_path}", r"expected one file t10k-images-idx3-ubyte \(or \.gz\), got 0 of them", split="test")
    with_content(whole)
    write(tmp_path, {"train-labels-idx1-ubyte": idx(np.zeros(5, np.uint8))})
    refuses(path, r"train-labels-idx1-ubyte: expected 23 labels, as many as images, got 5")
    write(tmp_path, {"t10k-images-idx3-ubyte": idx(GREY[:, :3])})
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    refuses(tmp_path, r"expected train and test images of one size, got \[", split="all")
    write(tmp_path, {name + ".gz": gzip.compress(whole)})
    refuses(tmp_path, r"expected one file train-images-idx3-ubyte \(or \.gz\), got 2 of them")


# CIFAR-10


def cifar_batches():
    pixels = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.array([3, 0, 9, 7, 1], np.uint8)
    records = np.concatenate([labels[:, None], pixels.reshape(5, -1)], 1)
    parts = {"data_batch_2.bin": records[2:4], "data_batch_1.bin": records[:2], "test_batch.bin": records[4:]}
    return pixels, labels, {name: part.tobytes() for name, part in parts.items()}


@pytest.mark.parametrize("container", ["folder", "inner", "tar"])
def test_cifar10(tmp_path, container):
    pixels, labels, files = cifar_batches()
    inner = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    path = {
        "folder": lambda: write(tmp_path, files),
        "inner": lambda: write(tmp_path, inner),
        "tar": lambda: write_tar(tmp_path / "cifar-10-binary.tar.gz", inner),
    }[container]()
    data = open_dataset(path)
    assert (data.images.numpy() == pixels[:4]).all() and data.labels.tolist() == labels[:4].tolist()
    assert (data.split("test").images.numpy() == pixels[4:]).all() and data.split("test").labels.tolist() == [1]
    assert (data.split("all").images.numpy() == pixels).all()
    half = pixels[:1].astype(int).reshape(1, 3, 16, 2, 16, 2).sum((3, 5))
    assert (open_dataset(path, 16, limit=1).images.numpy() == (half + 2) // 4).all()


def test_cifar10_refused(tmp_path):
    _, _, files = cifar_batches()
    batch = files["data_batch_1.bin"]
    cut = write(tmp_path / "cut", {"data_batch_1.bin": batch[:-1]})
    refuses(cut, r"cut/data_batch_1\.bin: expected a whole number of 3073-byte records, got 6145 bytes")
    refuses(cut, r"cut: expected CIFAR-10's binary version with test_batch\.bin, got no such file", split="test")
    label = write(tmp_path / "label", {"data_batch_1.bin": b"\x0a" + batch[1:]})
    refuses(label, r"label/data_batch_1\.bin: expected labels from 0 to 9, got 10")
    pickled = write(tmp_path / "py", {"data_batch_1": b"pickle"})
    refuses(pickled, r"py: expected CIFAR-10's binary version .*, got the pickled Python version \(data_batch_1\)")
    tar = write_tar(tmp_path / "py.tar.gz", {"cifar-10-batches-py/data_batch_1": b"pickle"})
    refuses(tar, r"py\.tar\.gz: expected .*, got the pickled Python version")
    whole = write_tar(tmp_path / "whole.tar.gz", files).read_bytes()
    write(tmp_path, {"half.tar.gz": whole[: len(whole) // 2], "text.tar.gz": b"hello"})
    refuses(tmp_path / "half.tar.gz", r"half\.tar\.gz: expected an intact tar archive of CIFAR-10's")
    refuses(tmp_path / "text.tar.gz", r"text\.tar\.gz: expected an intact tar archive")
    refuses(write_tar(tmp_path / "other.tar.gz", {"a": b"x"}), r"other\.tar\.gz: expected .* with data_batch_1\.bin")


# Arguments


def test_arguments_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    refuses(tmp_path / "a.txt", r"a\.txt: expected a folder or zip of pictures, .*, got a file \.txt")
    refuses(tmp_path / "nothing", r"nothing: expected digits, glyphs, .* or an existing path", FileNotFoundError)
    refuses("npy:nothing.npy", r"nothing\.npy: .*got no such file or folder", FileNotFoundError)
    refuses(3, "spec must be a string or a path, got int", TypeError)
    for size in (0, -3, (4,), (4, 0), 2.5, "ab"):
        refuses("glyphs", re.escape(f"size must be a positive integer or (height, width), got {size!r}"), size=size)
    refuses("glyphs", "channels must be 1 or 3, got 2", channels=2)
    refuses("glyphs", "split must be one of train, test, all, got 'val'", split="val")
    refuses("glyphs", "limit must be at least 1, got 0", limit=0)
    refuses("digits:7", "digits: expected digits without anything after it, got 'digits:7'")
