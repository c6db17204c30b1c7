"""Checkpoints: what is written is what is read, and nothing but whole files is read or left behind."""

import json
import os

import pytest
import torch
from linear_score import LinearScore, build
from safetensors.torch import load_file, save_file

from langevin_ext.training import checkpoint, describe, load, save


def network(seed=0):
    model = LinearScore()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        model.a.copy_(torch.randn(3, generator=generator))
        model.b.copy_(torch.randn(3, generator=generator))
    return model


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rewrite(path, **changes):
    """Writes the file again with another header, as someone with a hex editor might."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
    save_file(load_file(path), path, metadata={k: v for k, v in header.items() if v is not None})


def test_round_trip(tmp_path):
    model = network().train()
    sha256 = save(tmp_path / "m.safetensors", model, metadata={"steps": 5})
    again = load(tmp_path / "m.safetensors", build=build)
    assert equal(model, again) and not again.training
    facts = describe(tmp_path / "m.safetensors")
    assert facts["sha256"] == sha256 and facts["metadata"] == {"steps": 5} and facts["weights"] == ["model"]
    assert facts["parameters"] == 7 and facts["bytes"] == (tmp_path / "m.safetensors").stat().st_size
    assert facts["config"] == {"class": "LinearScore", "shape": [1, 4, 4], "sigmas": model.sigmas.tolist()}
    assert list(tmp_path.iterdir()) == [tmp_path / "m.safetensors"]


def test_every_type_and_shape(tmp_path):
    types = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ]
    tensors = {f"{i}": torch.arange(-3, 4).to(dtype) for i, dtype in enumerate(types)}
    tensors.update(flag=torch.tensor(True), empty=torch.zeros(0, 3), strided=torch.arange(6.0).view(2, 3).T)
    checkpoint.write(tmp_path / "t.safetensors", tensors, {}, {})
    for again in (checkpoint.read(tmp_path / "t.safetensors")[0], load_file(tmp_path / "t.safetensors")):
        assert again.keys() == tensors.keys()
        assert all(again[k].dtype == v.dtype and torch.equal(again[k], v) for k, v in tensors.items())
    raw = (tmp_path / "t.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    offsets = {k: v["data_offsets"][0] for k, v in json.loads(raw[8 : 8 + size]).items() if k in tensors}
    assert size % 8 == 0 and all(offsets[k] % v.element_size() == 0 for k, v in tensors.items())  # readers may map it
    other = tmp_path / "other"
    other.touch()
    assert (tmp_path / "t.safetensors").stat().st_mode == other.stat().st_mode


def test_hash_is_of_the_content(tmp_path):
    first = save(tmp_path / "a.safetensors", network(0), metadata={"note": "one"})
    assert save(tmp_path / "b.safetensors", network(0), metadata={"note": "two"}) == first
    assert save(tmp_path / "c.safetensors", network(1)) != first


def test_averaged_weights_are_the_default(tmp_path):
    raw, averaged = network(0), network(1)
    save(tmp_path / "m.safetensors", raw, ema=averaged.state_dict())
    assert equal(load(tmp_path / "m.safetensors", build=build), averaged)
    assert equal(load(tmp_path / "m.safetensors", ema=False, build=build), raw)
    save(tmp_path / "e.safetensors", raw, ema=averaged.state_dict(), raw=False)
    assert equal(load(tmp_path / "e.safetensors", build=build), averaged)
    with pytest.raises(ValueError, match=r"load: ema must be True for .*e.safetensors, which holds averaged"):
        load(tmp_path / "e.safetensors", ema=False, build=build)
    with pytest.raises(ValueError, match=r"save: ema must be given where raw=False, got None"):
        save(tmp_path / "n.safetensors", raw, raw=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(tmp_path, dtype):
    model = network()
    save(tmp_path / "m.safetensors", model, dtype=dtype)
    again = load(tmp_path / "m.safetensors", build=build)
    assert again.a.dtype == torch.float32 and torch.equal(again.a, model.a.to(dtype).float())
    assert again.samples_seen.dtype == torch.int64
    assert str(dtype).endswith(describe(tmp_path / "m.safetensors")["dtype"].split(", ")[0])


def test_half_precision_overflow(tmp_path):
    model = network()
    with torch.no_grad():
        model.a.fill_(1e6)
    with pytest.raises(ValueError, match=r"save: dtype must hold every weight, got torch.float16 for model.a up to 1e"):
        save(tmp_path / "m.safetensors", model, dtype=torch.float16)


def test_the_packages_own_networks(tmp_path):
    from langevin_ext.models import NCSN, NCSNv2

    for model in (NCSN((1, 8, 8), 4, [1.0, 0.5, 0.1]), NCSNv2((1, 8, 8), 8, [1.0, 0.3, 0.1])):
        save(tmp_path / "m.safetensors", model, dtype=torch.bfloat16)
        again = load(tmp_path / "m.safetensors")
        assert type(again) is type(model) and torch.equal(again.sigmas, model.sigmas)
        names = dict(model.named_parameters())
        assert all(torch.equal(p, names[name].bfloat16().float()) for name, p in again.named_parameters())


def test_shipped_names(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    save(tmp_path / "letters.safetensors", network())
    assert equal(load("letters", build=build), network())
    with pytest.raises(ValueError, match=r"load: path must be a file or one of .*\(letters\), got 'figures'"):
        load("figures")
    with pytest.raises(ValueError, match=r"describe: path must be a file or one of the shipped"):
        describe("figures")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load: file must exist, got .*none.safetensors"):
        load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04\x95pickle", b"\xff" * 200, b"\x10" + bytes(7) + b"{}", b"8" + bytes(7)]
)
def test_garbage(tmp_path, content):
    path = tmp_path / "garbage.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"load: .*garbage.safetensors is no whole safetensors file: [^\n]*$"):
        load(path)


def test_every_cut_and_every_flipped_byte(tmp_path):
    path = tmp_path / "cut.safetensors"
    save(path, network(), metadata={"steps": 1})
    whole = path.read_bytes()
    for size in range(0, len(whole), 23):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut.safetensors"):
            load(path, build=build)
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:  # a blank of the header may become a tab or so; nothing else may pass
            again = load(path, build=build)
        except ValueError as error:
            assert "cut.safetensors" in str(error)
        else:
            assert equal(again, network()) and describe(path)["metadata"] == {"steps": 1}


def test_other_safetensors_files(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"load: .*other.safetensors must be of the format .*, got None"):
        load(path)
    save(path, network())
    rewrite(path, config=json.dumps({"class": "LinearScore"}))
    with pytest.raises(ValueError, match=r"other.safetensors is damaged: its content does not match its checksum"):
        load(path)
    checkpoint.write(path, {"log.sum": torch.zeros(1)}, {}, {})
    with pytest.raises(ValueError, match=r"load: .*other.safetensors must hold weights, got none"):
        load(path)


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {"model.a": torch.zeros(2), "model.b": torch.zeros(3), "model.c": torch.zeros(1)}
    checkpoint.write(path, tensors, LinearScore().config(), {})
    with pytest.raises(
        ValueError,
        match=r"must fit LinearScore, got: samples_seen is missing; c is unknown;"
        r" a has shape \(2,\) instead of \(3,\)",
    ):
        load(path, build=build)


def test_wrong_arguments_of_save(tmp_path):
    with pytest.raises(TypeError, match=r"save: model must have config\(\).*, got Linear"):
        save(tmp_path / "m.safetensors", torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"save: config and metadata must fit into JSON"):
        save(tmp_path / "m.safetensors", network(), metadata={"x": torch.zeros(1)})
    with pytest.raises(TypeError, match=r"save: config and metadata must fit into JSON"):
        save(tmp_path / "m.safetensors", network(), metadata={"x": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "m.safetensors"
    save(path, network(0))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match="no space left"):
        save(path, network(1))
    monkeypatch.undo()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):
        save(tmp_path / "missing" / "m.safetensors", network(1))


def test_the_new_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])
    save(tmp_path / "m.safetensors", network())
    assert calls == ["fsync", "replace", "fsync"]
