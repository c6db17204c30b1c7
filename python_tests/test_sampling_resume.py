"""A run that is interrupted and called again ends with the bits of one that is not."""

import functools
import json

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from linear_score import LinearScore
from sampling_helpers import Counting

from langevin_ext import _files
from langevin_ext.samplers import record
from langevin_ext.sampling import sample
from langevin_ext.scores import GaussianField, GaussianMixture

FIELD = GaussianField((1, 3, 4))
RUN = {"n": 5, "seed": 3, "batch_size": 2, "n_steps_each": 4, "progress": False}
ROWS = 41  # per batch: ten levels of four steps, one to denoise


class Interrupt(Exception):
    pass


def interrupted(at, **arguments):
    """Runs until update number `at`, counted over all batches, has been made, and is stopped there."""
    seen = []

    def stop(now):
        seen.append(now["step"])
        if len(seen) == at:
            raise Interrupt

    with pytest.raises(Interrupt):
        sample(callback=stop, **arguments)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(record, "SAVING_SHARE", float("inf"))
    monkeypatch.setattr(_files, "_flush", lambda path: None)


@pytest.mark.parametrize("at", [1, 2, 4, 5, 40, 41, 42, 60, 82, 100, 122])
def test_resume_is_bit_equal(tmp_path, every_step, at):
    plain, expected = sample(FIELD, snapshot="levels", return_info=True, **RUN)
    run = {"model": Counting(FIELD), "checkpoint": tmp_path / "run", "snapshot": "levels", "return_info": True, **RUN}
    interrupted(at, **run)
    run["model"]._calls = 0
    x, info = sample(**run)
    assert torch.equal(x, plain)
    assert all(torch.equal(a, b) for a, b in zip(info["snapshots"], expected["snapshots"], strict=True))
    assert info["diagnostics"] == expected["diagnostics"]
    # what an interrupt may cost is the update it stopped in: the state is saved after each, batches when complete
    assert run["model"].calls == info["calls"]["3x4"] == 3 * ROWS - (at - 1)


def test_resume_with_inpainting_twice_interrupted(tmp_path, every_step):
    generator = torch.manual_seed(0)
    known, mask = torch.rand(5, 1, 3, 4, generator=generator), torch.rand(5, 1, 3, 4, generator=generator) < 0.5
    run = {"model": FIELD, "known": known, "mask": mask, **RUN}
    plain = sample(**run)
    for at in (45, 30):
        interrupted(at, checkpoint=tmp_path / "run", **run)
    assert torch.equal(sample(checkpoint=tmp_path / "run", **run), plain)


def test_resume_with_rare_saves(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SAVING_SHARE", 1e-9)  # after the first step, and at the end
    interrupted(70, model=FIELD, checkpoint=tmp_path / "run", **RUN)
    assert torch.equal(sample(FIELD, checkpoint=tmp_path / "run", **RUN), sample(FIELD, **RUN))


def test_a_complete_run_returns_at_once(tmp_path):
    model = Counting(FIELD)
    run = {"model": model, "checkpoint": tmp_path / "run", "return_info": True, **RUN}
    x, info = sample(**run)
    before = (tmp_path / "run").read_bytes()
    again, info_again = sample(**run)
    assert torch.equal(again, x) and model.calls == 3 * ROWS and info_again["calls"] == {"3x4": 0}
    assert info_again["seconds"] == info["seconds"] and info_again["diagnostics"] == info["diagnostics"]
    assert (tmp_path / "run").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_file_says_what_it_is(tmp_path):
    sample(FIELD, checkpoint=tmp_path / "run", **RUN)
    with safetensors.safe_open(tmp_path / "run", "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {"x", "statistics"}
    settings = json.loads(metadata["settings"])
    assert settings["eps"] == 2e-5 and settings["scheme"] == "annealed" and len(metadata["settings_hash"]) == 64


OTHER = {
    "seed": {"seed": 4},
    "n": {"n": 6},
    "eps": {"eps": 1e-5},
    "first": {"first": 1},
    "batch_size": {"batch_size": 3},
    "scheme": {"scheme": "langevin"},
    "sigmas": {"sigmas": FIELD.sigmas[:3]},
    "n_steps_each": {"n_steps_each": 5},
    "denoise": {"denoise": False},
    "init": {"init": torch.zeros(5, 1, 3, 4)},
    "dtype": {"dtype": torch.float64},
    "known": {"known": torch.zeros(1, 3, 4), "mask": torch.zeros(1, 3, 4)},
    "options": {"sigma_ref": 0.02},
    "snapshot": {"snapshot": 3, "return_info": True},
    "shape": {"model": GaussianField((1, 4, 3))},
    "model": {"model": GaussianField((1, 3, 4), mean=0.4)},
}


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_refused_by_name(tmp_path, name):
    sample(FIELD, checkpoint=tmp_path / "run", **RUN | {"n_steps_each": 1})
    before = (tmp_path / "run").read_bytes()
    run = {"model": FIELD, "checkpoint": tmp_path / "run", **RUN, "n_steps_each": 1} | OTHER[name]
    with pytest.raises(ValueError, match=rf"checkpoint .*run is of a run with another {name}: .* there, .* now"):
        sample(**run)
    assert (tmp_path / "run").read_bytes() == before


def test_networks_are_recognised_by_their_parameters(tmp_path):
    model = LinearScore()
    run = {"checkpoint": tmp_path / "run", **RUN}
    x = sample(model, **run)
    same = LinearScore()
    same.load_state_dict(model.state_dict())
    assert torch.equal(sample(same, **run), x)
    with torch.no_grad():
        same.a[1] += 1e-3
    with pytest.raises(ValueError, match="another model"):
        sample(same, **run)


def test_fingerprints_differ_where_models_do():
    means, weights = [[0.0], [1.0]], [0.5, 0.5]
    models = [
        GaussianMixture(means, weights),
        GaussianMixture(means, weights, form="replaced"),
        GaussianMixture(means, weights, 0.5),
        GaussianMixture(means, [0.4, 0.6]),
        FIELD,
        GaussianField((1, 4, 3)),
    ]
    assert len({record.fingerprint(model) for model in models}) == len(models)
    used = GaussianField((1, 3, 4))
    used(torch.zeros(1, 1, 3, 4), torch.tensor([0]))
    assert record.fingerprint(used) == record.fingerprint(FIELD)


class Pull:
    """A model of one attribute."""

    sigmas, shape = torch.tensor([1.0, 0.1]), (1, 2, 2)

    def __init__(self, k):
        self.k = k

    def __call__(self, x, level):
        return -self.k * x


def test_the_file_of_another_number_is_refused(tmp_path):
    run = {"checkpoint": tmp_path / "run", **RUN}
    x = sample(Pull(1.0), **run)
    assert torch.equal(sample(Pull(1.0), **run), x)
    with pytest.raises(ValueError, match="another model"):
        sample(Pull(5.0), **run)


def functions(a):
    def again(x):
        return again(x) if a else x

    return [
        lambda x: a * x,
        lambda x: x.sin(),
        lambda x: x.cos(),
        lambda x: 2.0 * x,
        lambda x: 3.0 * x,
        lambda x, b=a: b * x,
        lambda x: (lambda y: y + 4.0)(x),
        lambda x: (lambda y: y + 5.0)(x),
        functools.partial(torch.mul, a),
        again,
    ]


def test_fingerprints_take_every_kind_of_attribute():
    def values(a):
        array = np.array([a, 0.0])
        return [a, [a], (a,), {"k": a}, {"k": [a]}, array, torch.tensor(a), Pull(a), Pull([array]), *functions(a)]

    constant = (True, 1, None, [], [[]], "1", np.array([a for a in ("x", None)], dtype=object))
    distinct = [record.fingerprint(Pull(value)) for value in (*values(1.0), *constant)]
    assert len(set(distinct)) == len(distinct)
    assert distinct == [record.fingerprint(Pull(value)) for value in (*values(1.0), *constant)]
    changed = [record.fingerprint(Pull(value)) for value in values(2.0)]
    same = [i for i, (one, other) in enumerate(zip(distinct, changed, strict=False)) if one == other]
    assert same == [10, 11, 12, 13, 15, 16]  # functions that do not depend on a
    private = Pull(1.0)
    private._seen = 3
    assert record.fingerprint(private) == record.fingerprint(Pull(1.0))


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, every_step):
    def push(now):
        if now["step"] == 20:
            now["x"].fill_(torch.inf)

    with pytest.raises(FloatingPointError):
        sample(FIELD, checkpoint=tmp_path / "run", callback=push, **RUN)
    assert torch.equal(sample(FIELD, checkpoint=tmp_path / "run", **RUN), sample(FIELD, **RUN))


def test_files_of_another_kind_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "run"):
        with pytest.raises(ValueError, match="checkpoint must be a file in a folder that exists"):
            sample(FIELD, checkpoint=path, **RUN)
    (tmp_path / "text").write_text("not safetensors, and long enough to have a header")
    with pytest.raises(ValueError, match="checkpoint cannot be read, .*text"):
        sample(FIELD, checkpoint=tmp_path / "text", **RUN)
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "model")
    with pytest.raises(ValueError, match="must be the file of a sampling run, got .*model"):
        sample(FIELD, checkpoint=tmp_path / "model", **RUN)
