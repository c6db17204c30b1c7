"""A disk that is full, folders and files that cannot be written, files that are missing, cut off or changed: one clear
sentence each, and what was good before is kept."""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from linear_score import small
from safetensors.torch import load_file

from langevin_ext import data, load, sample
from langevin_ext._files import atomic_path, writing
from langevin_ext.samplers import record
from langevin_ext.scores import GaussianField
from langevin_ext.training import checkpoint, describe

FIELD = GaussianField((1, 3, 4))
RUN = {"n": 5, "seed": 3, "batch_size": 2, "n_steps_each": 4, "progress": False}
FULL = r"cannot write .*: (no space left on device|file too large); what was there before is kept$"


@contextlib.contextmanager
def files_of_at_most(size):
    """Writing beyond `size` bytes of a file fails as on a full disk, with EFBIG where that says ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no small file system can be mounted here; the tests with RLIMIT_FSIZE cover the same")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_atomic_path_on_a_full_disk(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"good")
    with files_of_at_most(100), pytest.raises(OSError, match=FULL) as caught:
        with atomic_path(path) as temporary:
            temporary.write_bytes(bytes(1000))
    assert caught.value.errno and path.read_bytes() == b"good" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_errors_of_other_kinds_keep_their_class_and_words(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^cannot write .*missing/file: no such file or directory; what"):
        with atomic_path(tmp_path / "missing" / "file") as temporary:
            temporary.write_bytes(b"")
    with pytest.raises(OSError, match="^cannot write x: because$"), writing("x"):
        raise OSError("because")
    with pytest.raises(ValueError, match="^mine$"), writing("x"):
        raise ValueError("mine")


def test_training_on_a_full_disk(tmp_path):
    small(tmp_path / "run", 7)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with files_of_at_most(500), pytest.raises(OSError, match=FULL):
        small(tmp_path / "run", 14)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == before[name]
    small(tmp_path / "run", 14)
    small(tmp_path / "whole", 14)
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_training_and_sampling_on_a_file_system_that_is_full(small_disk):
    small(small_disk / "run", 7)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    with pytest.raises(OSError, match=FULL):
        small(small_disk / "run", 14)
    with pytest.raises(OSError, match=FULL):
        sample(FIELD, checkpoint=small_disk / "sampling", **RUN)
    assert describe(small_disk / "run" / "checkpoint.safetensors")["metadata"]["step"] == 7
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast", "run"]
    ballast.unlink()
    small(small_disk / "run", 14)
    assert torch.equal(sample(FIELD, checkpoint=small_disk / "sampling", **RUN), sample(FIELD, **RUN))


def test_sampling_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SAVING_SHARE", float("inf"))
    path = tmp_path / "run"

    def fill(now):
        if now["step"] == 10:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with files_of_at_most(10**6), pytest.raises(OSError, match=FULL):
        sample(FIELD, checkpoint=path, callback=fill, **RUN)
    assert path.exists() and len(list(tmp_path.iterdir())) == 1
    assert torch.equal(sample(FIELD, checkpoint=path, **RUN), sample(FIELD, **RUN))


def held_by_permissions(code, *arguments):
    """Runs a program that permissions hold even where it is root's: without the capabilities to override them."""

    def drop():
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, preexec_fn=drop)


COMMAND = "import sys; from langevin_ext.cli import main; main(sys.argv[1:])"


@pytest.mark.parametrize("what", ["a folder that is read-only", "a file that is read-only"])
def test_command_line_without_permission(tmp_path, what):
    out = tmp_path / "out"
    out.mkdir(mode=0o555 if "folder" in what else 0o755)
    train = ["train", "rings:50", "--hidden", "4", "--steps", "4", "--batch-size", "4"]
    if "folder" in what:
        done = held_by_permissions(COMMAND, *train, "--out", out)
        message = f"Error: cannot write {out}/.lock: permission denied\n"
    else:
        evaluated = tmp_path / "images.npz"
        np.savez(evaluated, images=np.zeros((4, 8, 8), np.uint8))
        evaluated.chmod(0o000)
        done = held_by_permissions(COMMAND, "train", evaluated, "--steps", "4", "--out", out)
        message = f"Error: [Errno 13] Permission denied: '{evaluated}'\n"
    out.chmod(0o755)
    if done.returncode == 0:
        pytest.skip("permissions do not hold this user")
    assert done.returncode == 1 and done.stderr.endswith(message) and "Traceback" not in done.stderr
    assert not list(out.iterdir())


def flips(content, count, seed=0):
    """`count` copies of some bytes with one bit changed in each, all over."""
    places = np.random.default_rng(seed).integers(0, 8 * len(content), count)
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def cuts(content, count):
    for i in range(count):
        yield content[: i * len(content) // count]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint and a sampling run that are whole."""
    folder = tmp_path_factory.mktemp("whole")
    small(folder / "run", 3)
    sample(FIELD, checkpoint=folder / "sampling", **RUN)
    return (folder / "run" / "checkpoint.safetensors").read_bytes(), (folder / "sampling").read_bytes()


@pytest.mark.parametrize("damage", [flips, cuts])
def test_a_damaged_checkpoint_is_refused(whole, tmp_path, damage):
    good = whole[0]
    out = tmp_path / "run"
    out.mkdir()
    path = out / "checkpoint.safetensors"
    for content in damage(good, 150):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            checkpoint.read(path)
    with pytest.raises(ValueError, match="^train: .*checkpoint.safetensors is "):
        small(out, 6)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [flips, cuts])
def test_a_damaged_sampling_run_is_refused(whole, tmp_path, damage):
    path = tmp_path / "run"
    for content in damage(whole[1], 150):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="^sample: .*(damaged|cannot be read|must be the file of)"):
            sample(FIELD, checkpoint=path, **RUN)
        assert path.read_bytes() == content
    path.write_bytes(whole[1])
    assert torch.equal(sample(FIELD, checkpoint=path, **RUN), sample(FIELD, **RUN))


def test_a_sampling_run_of_the_format_without_checksum_is_read(whole, tmp_path):
    path = tmp_path / "run"
    length = int.from_bytes(whole[1][:8], "little")
    header = json.loads(whole[1][8 : 8 + length])
    header["__metadata__"] = {k: v for k, v in header["__metadata__"].items() if k != "checksum"}
    header["__metadata__"]["format"] = record.WITHOUT_CHECKSUM

    def write(position=None):
        if position is not None:
            header["__metadata__"]["position"] = position
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[1][8 + length :])

    write()
    assert torch.equal(sample(FIELD, checkpoint=path, **RUN), sample(FIELD, **RUN))
    for position in ("{}", "[1]", "{", '"x"'):
        write(position)
        with pytest.raises(ValueError, match="sample: checkpoint .*run is damaged: .*; delete it to begin again"):
            sample(FIELD, checkpoint=path, **RUN)


def test_a_sampling_run_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "run"
    sample(FIELD, checkpoint=path, **RUN)
    tensors, metadata = record.read_tensors(path)
    tensors["x"] = tensors["x"][:3].contiguous()
    record.write_tensors(path, tensors, metadata | {"checksum": record._checksum(tensors, metadata)})
    with pytest.raises(ValueError, match=r"damaged: TypeError, x has shape \(3, 1, 3, 4\), not \(5, 1, 3, 4\)"):
        sample(FIELD, checkpoint=path, **RUN)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("damage", [flips, cuts])
def test_a_damaged_npz_is_refused_or_unharmed(tmp_path, damage, packed):
    """Every member of a zip has a CRC-32; the few bits that nothing depends on, such as dates, change no image."""
    path, images = tmp_path / "images.npz", np.arange(400, dtype=np.uint8).reshape(4, 10, 10)
    (np.savez_compressed if packed else np.savez)(path, images=images)
    good, refused = path.read_bytes(), 0
    for content in damage(good, 150):
        path.write_bytes(content)
        try:
            found = data.open_dataset(f"npz:{path}", split="all").images
        except ValueError as error:
            assert str(error).startswith("open_dataset: ") and "\n" not in str(error)
            refused += 1
        else:
            assert np.array_equal(found.numpy()[:, 0], images)
    assert refused > 75


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="^load: file must exist, got .*missing.safetensors$"):
        load(tmp_path / "missing.safetensors")
    with pytest.raises(FileNotFoundError, match="^open_dataset: .*missing.npz: expected .* got no such file"):
        data.open_dataset(Path(tmp_path / "missing.npz"))
    small(tmp_path / "run", 3)
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with pytest.raises(
        ValueError, match="^train: out must be empty, new or an earlier run, got .* with log.jsonl in it$"
    ):
        small(tmp_path / "run", 6)
