"""What every scheme promises: it makes the evaluations of its plan, and its samples depend on neither batches nor
interruptions. Laws are in the tests of the families."""

import numpy as np
import pytest
import torch
from sampling_helpers import Counting

from langevin_ext import NCSN, _files, data, load, scores, train
from langevin_ext.samplers import SCHEMES, record
from langevin_ext.sampling import plan, sample
from langevin_ext.scores import GaussianMixture
from langevin_ext.scores.critical import CriticalMixture

MEANS = torch.tensor([[0.2, 0.7, 0.5, 0.1], [0.8, 0.3, 0.4, 0.9]]).reshape(2, 1, 2, 2)
MODEL = GaussianMixture(MEANS, [0.3, 0.7], 0.01)
OPTIONS = {
    "langevin": {"n_steps_each": 12, "level": 4},
    "annealed": {"n_steps_each": 2},
    "HRS": {"n_steps_each": 2},
    "consistent": {},
    "walk-jump": {"n_steps_each": 12, "sigma": 0.4},
    "jms": {"n_steps_each": 12, "sigma": 0.4, "m": 3},
    "sms": {"n_steps_each": 4, "sigma": 0.4, "m": 3},
    "ou-reverse": {"T": 1.2, "gamma": 0.1},
    "probability-flow": {"n_steps": 6},
    "cld-em": {"n_evals": 12},
    "cld-sscs": {"n_evals": 12},
    "cld-ode": {"n_evals": 29},
}
COUNTS = {
    "langevin": 13,
    "annealed": 21,
    "HRS": 21,
    "consistent": 10,
    "walk-jump": 13,
    "jms": 13,
    "sms": 3 * 4 + 2 + 1,
    "ou-reverse": 12,
    "probability-flow": 4 * 6 + 1,
    "cld-em": 12,
    "cld-sscs": 12,
    "cld-ode": 29,
}
VELOCITY = CriticalMixture(2 * MEANS - 1, [0.3, 0.7], 0.01)


def model_of(scheme):
    return VELOCITY if SCHEMES[scheme].velocity else MODEL


class Continuous(Counting):
    """Counts the evaluations at any noise level or time, too."""

    def __init__(self, model):
        self.model, self.shape, self._calls = model, model.shape, 0
        name = "process" if model is VELOCITY else "sigmas"
        setattr(self, name, getattr(model, name))

    def at_sigma(self, x, sigma):
        self._calls += 1
        return self.model.at_sigma(x, sigma)


def run(scheme, n=5, model=None, **more):
    model = model_of(scheme) if model is None else model
    return sample(model, scheme, n, progress=False, **({"seed": 3} | OPTIONS[scheme] | more))


def test_all_schemes_are_tested():
    assert set(SCHEMES) == set(OPTIONS)


@pytest.mark.parametrize("scheme", OPTIONS)
def test_evaluations_are_those_of_the_plan(scheme):
    model = Continuous(model_of(scheme))
    x, info = run(scheme, model=model, batch_size=2, return_info=True)
    assert model.calls == 3 * COUNTS[scheme]  # three batches
    laid_out = plan(model, scheme, 5, batch_size=2, **OPTIONS[scheme])
    assert laid_out.evaluations == info["evaluations"] == {"2x2": COUNTS[scheme]}
    assert info["calls"]["2x2"] == 3 * COUNTS[scheme]
    assert x.shape == (5, 1, 2, 2) and x.isfinite().all()
    assert str(laid_out).startswith(f"{scheme}: 5 samples of 1x2x2")
    assert plan(model, scheme, 5, measure=True, **OPTIONS[scheme]).seconds > 0


@pytest.mark.parametrize("scheme", OPTIONS)
def test_samples_depend_on_their_index_alone(scheme):
    whole = run(scheme)
    assert torch.equal(run(scheme, batch_size=2), whole)
    assert torch.equal(run(scheme, n=3, first=2), whole[2:])
    assert not torch.equal(run(scheme, seed=4), whole)


@pytest.mark.parametrize("at", [1, 4, 9, 11, 17])
@pytest.mark.parametrize("scheme", OPTIONS)
def test_resume_is_bit_equal(tmp_path, monkeypatch, scheme, at):
    monkeypatch.setattr(record, "SAVING_SHARE", float("inf"))
    monkeypatch.setattr(_files, "_flush", lambda path: None)
    seen = []

    def stop(now):
        seen.append(now["step"])
        if len(seen) == at:
            raise InterruptedError

    more = {"batch_size": 2, "checkpoint": tmp_path / "run", "snapshot": 3, "return_info": True}
    with pytest.raises(InterruptedError):
        run(scheme, callback=stop, **more)
    x, info = run(scheme, **more)
    expected, other = run(scheme, batch_size=2, snapshot=3, return_info=True)
    assert torch.equal(x, expected)
    assert all(torch.equal(a, b) for a, b in zip(info["snapshots"], other["snapshots"], strict=True))
    assert info["diagnostics"] == other["diagnostics"]


@pytest.mark.parametrize("scheme", OPTIONS)
def test_float64_agrees_with_float32(scheme):
    double = run(scheme, dtype=torch.float64)
    torch.testing.assert_close(run(scheme), double.float(), rtol=0, atol=2e-4)  # rounding over a hundred contractions


def test_starts():
    zero = scores.ScoreFunction(lambda x, sigma: torch.zeros_like(x), [1.0], (1, 2, 2))
    still = {"scheme": "langevin", "n": 6, "n_steps_each": 0, "denoise": False, "seed": 5, "progress": False}
    given = torch.rand(6, 1, 2, 2)
    assert torch.equal(sample(zero, init=given, **still), given)
    assert torch.equal(sample(zero, init=given.numpy(), **still), given)
    assert torch.equal(sample(zero, init="zeros", **still), torch.zeros(6, 1, 2, 2))
    uniform = sample(zero, **still)
    assert 0 < uniform.min() and uniform.max() < 1
    assert (sample(zero, init="normal", **still) < 0).any()


def test_starts_from_data_are_drawn_with_replacement():
    zero = scores.ScoreFunction(lambda x, sigma: torch.zeros_like(x), [1.0], (1, 1, 1))
    points = torch.arange(4.0).reshape(4, 1, 1, 1)
    run = {"scheme": "langevin", "n_steps_each": 0, "denoise": False, "seed": 5, "progress": False}
    x = sample(zero, n=4000, init="data", data=points, **run).flatten()
    counts = torch.stack([(x == value).sum() for value in range(4)])
    assert counts.sum() == 4000 and (counts - 1000).abs().max() < 4 * (4000 * 0.25 * 0.75) ** 0.5
    assert torch.equal(sample(zero, n=10, first=7, init="data", data=points, **run).flatten(), x[7:17])


def test_a_start_at_the_training_images_warns():
    digits = data.open_dataset("digits", split="train")
    model = scores.ScoreFunction(lambda x, sigma: -x, [1.0], digits.shape)
    run = {"scheme": "langevin", "n": 2, "n_steps_each": 1, "eps": 0.1, "progress": False, "init": "data"}
    sample(model, data=digits, **run)  # nothing is known of its training
    model.data_fingerprint = digits.fingerprint
    sample(model, data=digits.split("test"), **run)
    with pytest.warns(UserWarning, match="start at the images that the model was trained on.*split..test"):
        sample(model, data=digits, **run)


def test_numbers_of_numpy_and_torch_serve():
    plain = sample(MODEL, "annealed", 2, n_steps_each=2, sigma_ref=0.02, progress=False)
    assert torch.equal(sample(MODEL, "annealed", 2, n_steps_each=2, sigma_ref=np.float64(0.02), progress=False), plain)
    run = {"n_steps_each": np.int64(2), "snapshot": np.int64(5), "return_info": True, "progress": False}
    x, info = sample(MODEL, "sms", np.int32(2), sigma=torch.tensor(0.5), m=np.int64(3), **run)
    assert x.shape == (2, 1, 2, 2) and len(info["snapshots"]) == 1


def test_training_and_loading_know_their_images(tmp_path):
    digits = data.open_dataset("digits", split="train")
    network = NCSN(digits.shape, ngf=4, sigmas=[1.0, 0.5])
    options = {"batch_size": 2, "progress": False, "tensorboard": False}
    trained = train(network, digits, out=tmp_path / "run", steps=1, **options)
    assert trained.data_fingerprint == digits.fingerprint
    for name in ("model", "checkpoint"):
        assert load(tmp_path / "run" / f"{name}.safetensors").data_fingerprint == digits.fingerprint
    assert load("digits").data_fingerprint == digits.fingerprint


def test_snapshots_and_steps_of_the_ode():
    seen = []
    run = {"snapshot": "levels", "return_info": True, "callback": lambda now: seen.append(now["step"])}
    _, info = sample(MODEL, "probability-flow", 2, n_steps=20, progress=False, **run)
    assert len(info["snapshots"]) == len(info["diagnostics"]) == 10 and seen == list(range(21))


def test_models_that_do_not_fit_the_scheme():
    with pytest.raises(TypeError, match="it is a velocity model: use the scheme cld-em, cld-sscs or cld-ode, got Crit"):
        sample(VELOCITY, progress=False)
    with pytest.raises(TypeError, match=r"callable as model\(u, t\) .* \(train one with objective='hsm'\), got Gauss"):
        sample(MODEL, "cld-em", progress=False)
    with pytest.raises(TypeError, match="argument callback must be callable, got int"):
        sample(MODEL, callback=3, progress=False)
