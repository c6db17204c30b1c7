"""`sample` and `plan`: what they return, count, report and refuse."""

import sys
import warnings

import numpy as np
import pytest
import torch
from linear_score import LinearScore
from sampling_helpers import Counting

from langevin_ext import noise
from langevin_ext.sampling import plan, sample
from langevin_ext.scores import Gaussian, GaussianField, GaussianMixture, ScoreFunction

FIELD = GaussianField((2, 4, 3))
MIXTURE = GaussianMixture([[-1.0, 0.0], [1.0, 1.0]], [0.3, 0.7], 0.1)
QUICK = {"n_steps_each": 3, "progress": False}


# --- a sample depends on (seed, global index) alone ---
@pytest.mark.parametrize("model", [FIELD, MIXTURE, Gaussian([0.1] * 5, cov=torch.eye(5) + 0.2)])
@pytest.mark.parametrize("init", ["uniform", "normal"])
def test_batches_and_parts_give_the_same_bits(model, init):
    settings = {"seed": 5, "init": init, **QUICK}
    whole = sample(model, n=16, batch_size=16, **settings)
    assert torch.equal(whole, sample(model, n=16, batch_size=3, **settings))
    parts = [sample(model, n=7, **settings), sample(model, n=9, first=7, **settings)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, sample(model, n=16, **settings | {"seed": 6}))


def test_batches_with_a_network_agree_to_rounding():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    torch.nn.init.normal_(network.weight, std=0.1, generator=torch.manual_seed(0))
    model = ScoreFunction(lambda x, sigma: (network(x) - x) / (1 + sigma**2), [1.0, 0.1], (1, 8, 8))
    whole = sample(model, n=16, **QUICK)
    torch.testing.assert_close(sample(model, n=16, batch_size=3, **QUICK), whole, rtol=0, atol=1e-5)


def test_the_start_has_its_own_noise():
    still = {"n": 4, "seed": 3, "first": 2, "n_steps_each": 0, "denoise": False, "progress": False}
    shape = (4, 2, 4, 3)
    assert torch.equal(sample(FIELD, **still), noise.uniform(shape, 3, first=2, stream=noise.INIT))
    assert torch.equal(sample(FIELD, init="normal", **still), noise.normal(shape, 3, first=2, stream=noise.INIT))
    start = torch.rand(shape)
    copy = start.clone()
    assert torch.equal(sample(FIELD, init=start, **still), start)
    sample(FIELD, init=start, n=4, **QUICK)
    assert torch.equal(start, copy)


# --- the schemes' names, their options, the ladder ---
def test_names_and_defaults():
    x = sample(FIELD, n=3, seed=1, eps=2e-5, **QUICK)
    assert x.shape == (3, 2, 4, 3) and x.dtype == torch.float32 and not x.is_inference()
    for other in ({"scheme": "HRS"}, {"scheme": "annealed", "step_lr": 1e-5}, {"sigma_ref": FIELD.sigmas[-1].item()}):
        assert torch.equal(x, sample(FIELD, n=3, seed=1, **other, **QUICK))
    last = sample(FIELD, "langevin", n=3, seed=1, **QUICK)
    assert torch.equal(last, sample(FIELD, "langevin", n=3, seed=1, level=9, **QUICK))
    assert torch.equal(last, sample(FIELD, "langevin", n=3, seed=1, level=-1, **QUICK))
    assert torch.equal(last, sample(FIELD, n=3, seed=1, sigmas=FIELD.sigmas[-1:], **QUICK))
    assert not torch.equal(last, sample(FIELD, "langevin", n=3, seed=1, level=8, **QUICK))


def test_sigmas_may_be_some_of_the_models_or_any_with_at_sigma():
    sigmas = FIELD.sigmas[2:7]
    x = sample(GaussianField((2, 4, 3), sigmas=sigmas), n=3, **QUICK)
    assert torch.equal(sample(FIELD, n=3, sigmas=sigmas, **QUICK), x)
    assert torch.equal(sample(Counting(FIELD), n=3, sigmas=sigmas.tolist(), **QUICK), x)  # has no at_sigma
    other = torch.tensor([0.5, 0.25])
    x = sample(GaussianField((2, 4, 3), sigmas=other), n=3, **QUICK)
    assert torch.equal(sample(FIELD, n=3, sigmas=other, **QUICK), x)
    with pytest.raises(ValueError, match="sigmas must be levels of the model, which has no at_sigma; got 0.5"):
        sample(Counting(FIELD), sigmas=other, **QUICK)


def test_literal_reference_sigma_of_a_part_of_the_ladder():
    full = FIELD.sigmas
    rows = plan(FIELD, sigmas=full[:2], sigma_ref=full[-1].item()).stages[0].rows
    assert rows[0].score_coef == pytest.approx(0.1) and rows[100].noise_coef ** 2 == pytest.approx(0.0718763, rel=1e-6)
    assert plan(FIELD, sigmas=full[:2]).stages[0].rows[100].noise_coef ** 2 == pytest.approx(2e-5)


# --- counting ---
@pytest.mark.parametrize("scheme, count", [("annealed", 30), ("langevin", 3)])
@pytest.mark.parametrize("denoise", [True, False])
def test_evaluations_are_the_plans(scheme, count, denoise):
    model = Counting(FIELD)
    planned = plan(model, scheme, 5, denoise=denoise, batch_size=2, **QUICK)
    assert planned.evaluations == {"4x3": count + denoise} and planned.batches == 3 and planned.seconds is None
    assert model.calls == 0
    _, info = sample(model, scheme, 5, denoise=denoise, batch_size=2, return_info=True, **QUICK)
    assert model.calls == 3 * (count + denoise)
    assert info["evaluations"] == planned.evaluations and info["calls"] == {"4x3": model.calls}


def test_plan_describes_itself():
    text = str(plan(FIELD, n=5, eps=1e-4, batch_size=2, measure=True))
    for part in (
        "annealed: 5 samples of 2x4x3 in 3 batches of at most 2",
        "4x3, 10 levels, sigma 1 0.599484",
        "100 steps each, eps 0.0001 (step_lr 5e-05), then denoised",
        "eps 0.0001 (step_lr 5e-05)",
        "1001 evaluations at 4x3",
        "about",
    ):
        assert part in text
    assert plan(FIELD, n=3, measure=True).seconds > 0
    assert "0 levels, sigma none" in str(plan(FIELD, n_steps_each=0))


# --- watching ---
def test_callback_sees_every_update():
    seen = []
    x = sample(
        FIELD,
        n=3,
        first=10,
        batch_size=2,
        sigmas=FIELD.sigmas[:2],
        callback=lambda now: seen.append({**now, "x": now["x"].clone()}),
        **QUICK,
    )
    assert [(now["step"], now["level"]) for now in seen[:7]] == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 1)]
    assert [now["kind"] for now in seen[:7]] == ["step"] * 6 + ["denoise"]
    assert [now["first"] for now in seen] == [10] * 7 + [12] * 7
    assert seen[3]["sigma"] == FIELD.sigmas[1].item() and seen[0]["stage"] == 0
    assert torch.equal(torch.cat([seen[6]["x"], seen[13]["x"]]), x)


def test_snapshots():
    settings = {"n": 5, "seed": 2, "batch_size": 2, **QUICK}
    last = sample(FIELD, denoise=False, **settings)
    x, info = sample(FIELD, snapshot="levels", return_info=True, **settings)
    assert len(info["snapshots"]) == 10 and torch.equal(info["snapshots"][-1], last)
    assert [place["level"] for place in info["snapshot_places"]] == list(range(10))
    first = sample(FIELD, denoise=False, sigma_ref=FIELD.sigmas[-1].item(), sigmas=FIELD.sigmas[:4], **settings)
    assert torch.equal(info["snapshots"][3], first)
    again, info = sample(FIELD, snapshot=4, return_info=True, **settings)
    assert torch.equal(again, x)
    assert [place["step"] for place in info["snapshot_places"]] == [3, 7, 11, 15, 19, 23, 27]
    assert torch.equal(info["snapshots"][2], first)  # after 12 steps: four levels of three


def test_info():
    model = Gaussian(0.5, variance=0.0625, sigmas=[1.0, 0.25], shape=(1, 4, 4))
    x, info = sample(
        model,
        n=200,
        batch_size=70,
        eps=0.05,
        denoise=False,
        n_steps_each=50,
        return_info=True,
        snapshot="levels",
        progress=False,
    )
    assert info["seconds"] > 0 and info["images_per_second"] == pytest.approx(200 / info["seconds"])
    assert info["backend"] in ("native on cpu", "reference on cpu") and info["precision"] == "fp32"
    assert info["settings"]["eps"] == 0.05 and info["settings"]["sigmas"] == [[1.0, 0.25]]
    for row, image in zip(info["diagnostics"], info["snapshots"], strict=True):
        assert row["mean"] == pytest.approx(image.double().mean().item(), abs=1e-9)
        assert row["variance"] == pytest.approx(image.double().var(correction=0).item(), rel=1e-9)
        assert row["nonfinite"] == 0
        # sigma |s| of N(m, S) data: about sigma / sqrt(S) sqrt(D)
        assert row["score_norm"] == pytest.approx(4 * row["sigma"] / (0.0625 + row["sigma"] ** 2) ** 0.5, rel=0.4)
    assert torch.equal(info["snapshots"][-1], x)


def test_a_run_of_no_steps_has_no_levels():
    x, info = sample(FIELD, n=2, n_steps_each=0, snapshot="levels", return_info=True, progress=False)
    assert info["diagnostics"] == info["snapshots"] == [] and info["evaluations"] == {"4x3": 1}
    start = sample(FIELD, n=2, n_steps_each=0, denoise=False, progress=False)
    torch.testing.assert_close(x, start + 1e-4 * FIELD.at_sigma(start, 0.01))


@pytest.mark.parametrize("dtype, other", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_scores_of_another_precision(dtype, other):
    model = ScoreFunction(lambda x, sigma: (-x / (1 + sigma**2)).to(other), [1.0, 0.1], (1, 2, 2))
    same = ScoreFunction(lambda x, sigma: -x / (1 + sigma**2), [1.0, 0.1], (1, 2, 2))
    x = sample(model, dtype=dtype, **QUICK)
    assert x.dtype == dtype
    torch.testing.assert_close(x, sample(same, dtype=dtype, **QUICK), rtol=0, atol=1e-6)


def test_progress_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    sample(FIELD, n=1, n_steps_each=1)
    text = capsys.readouterr().err
    assert "annealed: 100%" in text and "11/11" in text and "step/s" in text
    sample(FIELD, n=1, **QUICK)
    assert capsys.readouterr().err == ""


class Trained(LinearScore):
    """A network with a part in evaluation mode of its own, which records the mode it is called in."""

    def __init__(self):
        super().__init__()
        self.frozen, self.modes = torch.nn.Dropout().eval(), []

    def forward(self, x, level):
        self.modes.append((self.training, self.frozen.training, torch.is_inference_mode_enabled()))
        return super().forward(x, level)


def test_networks_run_in_evaluation_mode_and_get_their_mode_back():
    model = Trained()
    sample(model, n=2, **QUICK)
    assert set(model.modes) == {(False, False, True)} and model.training and not model.frozen.training
    with pytest.raises(ZeroDivisionError):
        sample(model, n=2, callback=lambda _: 1 / 0, **QUICK)
    assert model.training


# --- what cannot go on ---
@pytest.mark.parametrize("scheme, step, level", [("annealed", 137, 1), ("langevin", 137, 9), ("annealed", 1000, 9)])
def test_a_state_that_is_not_finite_stops_the_run(scheme, step, level):
    """The score of one state is infinite; the message names its step and sample, whenever the check comes."""
    steps = 200 if scheme == "langevin" else 100
    run = {"n": 5, "first": 11, "batch_size": 3, "n_steps_each": steps, "progress": False}
    states = []
    sample(FIELD, scheme, callback=lambda now: states.append(now["x"][1].clone()), **run)

    class Breaking(Counting):
        def __call__(self, x, level):
            score = super().__call__(x, level)
            score[(x == states[step - 1]).flatten(1).all(1)] = torch.inf
            return score

    match = rf"not finite after the update at level {level} \(sigma .*\), step {step}, in 1 of 3 samples .*index 12\)"
    with pytest.raises(FloatingPointError, match=match):
        sample(Breaking(FIELD), scheme, **run)


def test_a_fault_that_does_not_repeat_is_named_where_it_was_seen():
    def push(now):
        if now["step"] == 137:
            now["x"][1, 0, 0, 0] = torch.nan

    with pytest.raises(FloatingPointError, match=r"step 199, in 1 of 3 samples .*index 1\)"):
        sample(FIELD, n=3, callback=push, progress=False)


def test_a_diverging_score_is_diagnosed():
    model = ScoreFunction(lambda x, sigma: 1e3 * x / sigma**2, [1.0, 0.5], (1, 2, 2))
    with pytest.raises(FloatingPointError, match=r"level 0 \(sigma 1\), step \d+, in .* of 16 .*eps = 0.5 may be too"):
        sample(model, eps=0.5, progress=False)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"scheme": "LRS"},
            r"must be langevin, annealed \(= HRS\), consistent, .* or HRS-j with j from 1 to 10 for one model, got 'L",
        ),
        ({"scheme": 3}, "scheme must be langevin, annealed"),
        ({"eta": 1.0}, "scheme 'annealed' has the options sigma_ref, inpaint_order, got 'eta'"),
        ({"sigma_ref": -1.0}, "sigma_ref must be a positive number or 'stage', got -1"),
        ({"scheme": "langevin", "level": 10}, "level must be an index into the 10 sigmas, got 10"),
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"n": 2.5}, "n must be an integer"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"n_steps_each": -1}, "n_steps_each must be an integer of at least 0"),
        ({"seed": 2**64}, r"seed must be below 2\^64"),
        ({"first": 2**32 - 1}, r"first \+ n must be at most 2\^32, got 4294967295 \+ 16"),
        ({"first": -1}, "first must be an integer of at least 0"),
        ({"eps": 1e-5, "step_lr": 1e-5}, "sample: arguments eps and step_lr are two conventions"),
        ({"eps": -1.0}, "sample: argument eps must be a positive number"),
        ({"eps": 4e-4}, r"annealed: argument eps must be below 4 sigma\^2 = 0.0004"),
        ({"scheme": "langevin", "eps": 1.5, "level": 1}, r"langevin: .*below 4 sigma\^2 = 1.43"),
        ({"sigmas": [0.1, 0.2]}, "argument sigmas: must be strictly decreasing"),
        ({"init": "ones"}, "init must be one of 'uniform', 'normal', 'zeros', 'data' or a tensor, got 'ones'"),
        ({"init": "data"}, "init='data' needs the argument data"),
        ({"data": torch.zeros(5, 2, 4, 3)}, "data is the start of init='data', got init='uniform'; give both"),
        ({"init": "data", "data": torch.zeros(5, 2, 4, 4)}, r"data must be images of shape \(2, 4, 3\), got \(2, 4"),
        ({"init": torch.zeros(2, 2, 4, 3)}, r"init must have shape \(16, 2, 4, 3\), got \(2, 2, 4, 3\)"),
        ({"init": torch.full((16, 2, 4, 3), torch.nan)}, "init must be finite"),
        ({"snapshot": "all", "return_info": True}, "snapshot must be 'levels' or a positive integer, got 'all'"),
        ({"snapshot": "levels"}, "snapshot needs return_info=True"),
        ({"upsample": "cubic"}, "upsample must be one of bicubic, bicubic-pil, bilinear, nearest or a callable"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, tf32, fp16, bf16, int16, got 'fp8'"),
        ({"dtype": torch.float16}, "dtype must be torch.float32 or torch.float64"),
        ({"dtype": torch.float64, "device": "meta"}, "dtype must be torch.float32 on meta, torch.float64 is for the"),
        ({"init": np.zeros((2, 2, 4, 3))}, r"init must have shape \(16, 2, 4, 3\), got \(2, 2, 4, 3\)"),
        ({"init": [0.0]}, "or a tensor, got list"),
        ({"scheme": "consistent", "eps": 1e-5}, "scheme 'consistent' does not take the argument eps; leave it out"),
        ({"scheme": "consistent", "step_lr": 1e-5}, "scheme 'consistent' does not take the argument step_lr"),
        (
            {"scheme": "ou-reverse", "known": torch.zeros(2, 4, 3), "mask": torch.ones(2, 4, 3)},
            "scheme 'ou-reverse' does not take known pixels",
        ),
        ({"scheme": "sms", "sigma": 1.0}, "scheme 'sms' needs the option m"),
        (
            {"scheme": "jms", "sigma": 1.0, "m": 2, "denoise": False},
            "scheme 'jms' does not take the argument denoise; leave it out",
        ),
        ({"scheme": "walk-jump", "sigma": 1.0, "sigmas": [2.0, 1.0]}, "does not take the argument sigmas"),
        ({"init": "data", "data": np.zeros((5, 2, 4), "f4")}, r"data must be float images \(N, C, H, W\), got"),
        ({"scheme": "ou-reverse", "T": 400.0, "gamma": 1.0}, "option T must be at most 300, .*, got 400"),
        ({"scheme": "probability-flow", "rtol": -1}, "option rtol must be a positive number, got -1"),
        (
            {"known": torch.zeros(2, 4, 3), "mask": torch.ones(2, 4, 3), "n_steps_each": 0},
            "n_steps_each must be at least 1 with known pixel",
        ),
        ({"device": "gpu"}, "device must be 'cpu', 'cuda' or 'cuda:0' and so on, got 'gpu'"),
        ({"device": "mps"}, "device must be 'cpu', 'cuda' or 'cuda:0' and so on, got 'mps'"),
        ({"device": "cuda:99"}, "device must be 'cpu'.*, got 'cuda:99'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(FIELD, progress=False, **arguments)


def test_errors_about_the_model():
    with pytest.raises(TypeError, match="callable as model.x, level. and have the attributes sigmas and shape"):
        sample(lambda x, level: x)
    with pytest.raises(ValueError, match="got an empty list"):
        sample([])
    wrong = ScoreFunction(lambda x, sigma: x[:1], [1.0], (1, 2, 2))
    with pytest.raises(ValueError, match=r"score shaped like x, \(16, 1, 2, 2\), got \(1, 1, 2, 2\)"):
        sample(wrong, progress=False)
    with pytest.raises(ValueError, match=r"device must be the model's, cpu .*got meta"):
        sample(LinearScore(), device="meta", progress=False)
    with pytest.raises(
        ValueError, match="dtype must be that of the model's parameters, torch.float32, got torch.float64"
    ):
        sample(LinearScore(), dtype=torch.float64, progress=False)
    assert sample(LinearScore().double(), dtype=torch.float64, **QUICK).dtype == torch.float64
    flat = ScoreFunction(lambda x, sigma: x, [1.0], (1, 2, 2))
    flat.shape = (4,)
    with pytest.raises(ValueError, match=r"model must have shape \(C, H, W\), got \(4,\)"):
        sample(flat)


def test_one_level_and_an_overshooting_step():
    model = Gaussian(0.5, variance=0.0, sigmas=[0.5], shape=(1, 2, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = sample(model, n=2, eps=0.5, **QUICK)
    torch.testing.assert_close(x, torch.full_like(x, 0.5))
    with pytest.warns(UserWarning, match="annealed: eps=0.6 is above 2 sigma.2 = 0.5"):
        sample(model, n=2, eps=0.6, **QUICK)
