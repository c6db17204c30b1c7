"""Multi-resolution Langevin dynamics: exact laws, exact paths, plans, settings, inpainting, continuation, messages."""

import warnings

import numpy as np
import pytest
import torch
from multiresolution_oracle import keys_matrix, law, path, right_covariance, upsampling_matrix
from sampling_helpers import Counting, geometric

from langevin_ext import metrics, noise, plan, sample
from langevin_ext.samplers.table import Run, Upsample
from langevin_ext.scores import GaussianField

HIGH = GaussianField((1, 8, 8), sigmas=geometric(1, 0.01, 10))
LOW, LOWEST = HIGH.pooled(2), HIGH.pooled(4)
PAIR, THREE = [LOW, HIGH], [LOWEST, LOW, HIGH]
PAPER = {"denoise": False, "progress": False}
# average pixel variance, average covariance of horizontal neighbours, Frechet distance^2 to the data, for the field
# of variance 1/16 and correlation 0.9 at 8 x 8, ten levels 1 to 0.01, 100 steps each, eps 2e-5, from U(0, 1)
ROWS = {
    ("HRS", "bicubic", None): (0.06640651, 0.05969419, 0.003896),
    ("LRS", "bicubic", None): (0.05994008, 0.05118496, 0.000871),
    ("LRS-up", "bicubic", None): (0.05914619, 0.05682704, 0.308576),
    ("LRS-up-HRS-1", "bicubic", None): (0.06003203, 0.05686989, 0.149073),
    ("LRS-up-HRS-2", "bicubic", None): (0.06114629, 0.05714708, 0.076251),
    ("LRS-up-HRS-3", "bicubic", None): (0.06272446, 0.05764205, 0.025016),
    ("LRS-up-HRS-4", "bicubic", None): (0.06446999, 0.05830988, 0.004975),
    ("LRS-up-HRS-5", "bicubic", None): (0.06543492, 0.05881983, 0.002729),
    ("LRS-up-HRS-6", "bicubic", None): (0.06560266, 0.05891613, 0.002632),
    ("LRS-up-HRS-9", "bicubic", None): (0.06620458, 0.05948781, 0.003533),
    ("LRS-up-HRS-10", "bicubic", None): (0.06640795, 0.05969566, 0.003898),
    ("LRS-2-up-HRS-9", "bicubic", None): (0.06651484, 0.05980490, 0.004103),
    ("LRS-2-up-HRS-9", "bicubic", "stage"): (0.06570765, 0.05897997, 0.002777),
    ("LRS-3-up-HRS-8", "bicubic", None): (0.06686928, 0.06016702, 0.004846),
    ("LRS-8-up-HRS-3", "bicubic", None): (0.06293362, 0.05781245, 0.024674),
    ("LRS-up", "nearest", None): (0.05994008, 0.05618788, 0.393483),
    ("LRS-up", "bilinear", None): (0.05512096, 0.05342081, 0.351519),
    ("LRS-up-HRS-3", "nearest", None): (0.06238225, 0.05690643, 0.046320),
    ("LRS-up-HRS-3", "bilinear", None): (0.05951868, 0.05481751, 0.042534),
    ("R2[1:4]-up-R1[4:7]-up-R0[7:10]", "bicubic", None): (0.06522812, 0.05901202, 0.005618),
}


def models_for(scheme):
    return THREE if scheme.startswith("R2") else PAIR


@pytest.mark.parametrize(("scheme", "mode", "sigma_ref"), ROWS)
def test_law_of_every_scheme(scheme, mode, sigma_ref):
    models, (variance, neighbours, distance) = models_for(scheme), ROWS[scheme, mode, sigma_ref]
    settings = {"sigma_ref": sigma_ref, "upsample": mode}
    made = plan(models, scheme, **settings, **PAPER)
    exact, target = law(made.stages, models, mode), models[made.output]
    weights = right_covariance(target.shape)
    # half a unit of the last digit of the table
    assert np.trace(exact) / len(exact) == pytest.approx(variance, abs=0.6e-8)
    assert np.trace(weights @ exact) == pytest.approx(neighbours, abs=0.6e-8)
    mean = torch.zeros(len(exact))
    measured = metrics.frechet_distance(mean, torch.from_numpy(exact), mean, target.covariance())
    assert measured == pytest.approx(distance, abs=0.6e-6)

    # the sampler, in law: along each eigenvector of the exact covariance that has any variance, sums of squares of
    # normals at 5 standard errors (one false alarm in 25,000), and the averages of the table at 4
    n = 300
    x = sample(models, scheme, n, seed=3, **settings, **PAPER).double().flatten(1).numpy() - 0.5
    values, vectors = np.linalg.eigh(exact)
    values, vectors = values[values > 1e-12], vectors[:, values > 1e-12]
    ratios = ((x @ vectors) ** 2).mean(0) / values
    assert np.abs(ratios - 1).max() < 5 * np.sqrt(2 / n)
    empirical = x.T @ x / n
    for functional in (np.eye(len(exact)) / len(exact), weights):
        error = np.sqrt(2 * np.trace(exact @ functional @ exact @ functional) / n)
        assert abs(np.trace(functional @ (empirical - exact))) < 4 * error

    # and along its very path, for the same noise: rounding of 1000 float64 steps (1e-13) is far below
    stages = made.stages
    y = sample(models, scheme, 3, seed=3, first=5, dtype=torch.float64, **settings, **PAPER).flatten(1).numpy()
    assert np.abs(y - path(stages, models, 3, seed=3, first=5, mode=mode)).max() < 1e-10


QUICK = {"n_steps_each": 3, "progress": False}


def run(models, scheme, n=3, **arguments):
    return sample(models, scheme, n, dtype=torch.float64, **(QUICK | arguments)).flatten(1).numpy()


def test_denoising_is_the_last_update_of_the_last_run():
    for scheme, levels in (("LRS-2-up-HRS-9", 11), ("LRS-4-up", 4)):
        stages = plan(PAIR, scheme, **QUICK).stages
        runs = [stage for stage in stages if isinstance(stage, Run)]
        assert runs[-1].rows[-1].kind == "denoise" and runs[-1].rows[-1].noise_coef == 0
        assert sum(len(stage.rows) for stage in runs) == 3 * levels + 1
        assert np.abs(run(PAIR, scheme) - path(stages, PAIR, 3, seed=0)).max() < 1e-12


@pytest.mark.parametrize("mode", ["bicubic", "bicubic-pil", "bilinear", "nearest"])
def test_renoise_adds_the_level_at_which_the_next_resolution_starts(mode):
    stages = plan(PAIR, "LRS-up-HRS-4", renoise=True, **QUICK).stages
    assert stages[1] == Upsample(1, HIGH.sigmas[6].item(), 0)
    x = run(PAIR, "LRS-up-HRS-4", renoise=True, upsample=mode)
    # sigma is passed to the kernel in float32 where the upsampling is not fused: 1e-8 relative
    assert np.abs(x - path(stages, PAIR, 3, seed=0, mode=mode)).max() < 1e-6
    v = law(stages, PAIR, mode)
    assert np.trace(v) > np.trace(law(plan(PAIR, "LRS-up-HRS-4", **QUICK).stages, PAIR, mode))


def test_renoise_counts_upsamplings_and_only_acts_before_a_run():
    stages = plan(THREE, "R2[1:2]-up-up-R0[3:4]", renoise=True, **QUICK).stages
    assert [(s.sigma, s.step) for s in stages if isinstance(s, Upsample)] == [(0.0, 0), (HIGH.sigmas[2].item(), 1)]
    x = run(THREE, "R2[1:2]-up-up-R0[3:4]", renoise=True)
    assert np.abs(x - path(stages, THREE, 3, seed=0)).max() < 1e-12
    stages = plan(PAIR, "LRS-up", renoise=True, **QUICK).stages
    assert stages[1].sigma == 0


def test_renoise_is_the_same_for_any_batch_and_upsampling():
    z = noise.normal((4, 64), 0, stream=noise.RENOISE).double().numpy()
    for mode in ("bicubic", "nearest"):
        with_noise, without = (
            run(PAIR, "LRS-1-up-HRS-1", 4, n_steps_each=[2, 0], renoise=on, upsample=mode, denoise=False, batch_size=3)
            for on in (True, False)
        )
        assert np.abs(with_noise - without - 0.01 * z).max() < 1e-8  # sigma in float32, as above


def test_pil_upsampling_is_keys_cubic_with_a_half():
    low, high = (run(PAIR, scheme, upsample="bicubic-pil") for scheme in ("LRS", "LRS-up"))
    assert np.abs(high - low @ upsampling_matrix(LOW.shape, "bicubic-pil").T).max() < 1e-13
    # the weights that PIL's documentation of BICUBIC implies, inside: -9, 111, 29, -3 over 128
    assert np.abs(keys_matrix(6, -0.5)[5, 1:5] - np.array([-9, 111, 29, -3]) / 128).max() < 1e-15


# --- plan and cost ---
@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [("HRS", 0, 1000), ("LRS", 1000, 0), ("LRS-up", 1000, 0), ("LRS-up-HRS-3", 1000, 300), ("LRS-up-HRS-9", 1000, 900)]
    + [(f"LRS-{i}-up-HRS-{11 - i}", 100 * i, 1100 - 100 * i) for i in range(2, 9)],
)
def test_plan_counts_the_evaluations_of_the_paper(scheme, low, high):
    assert plan(PAIR, scheme, **PAPER).evaluations == {"4x4": low, "8x8": high}


def test_sample_makes_exactly_the_planned_evaluations():
    counting = [Counting(model) for model in THREE]
    arguments = {"n_steps_each": [2, 3, 4], "batch_size": 2, "progress": False}
    made = plan(counting, "R2[1:4]-up-R1[4:7]-up-R0[7:10]", 5, **arguments)
    assert made.evaluations == {"2x2": 8, "4x4": 12, "8x8": 17} and made.batches == 3
    _, info = sample(counting, "R2[1:4]-up-R1[4:7]-up-R0[7:10]", 5, return_info=True, **arguments)
    assert [model.calls for model in counting] == [24, 36, 51] == list(info["calls"].values())
    assert info["evaluations"] == made.evaluations


def test_plan_predicts_the_sum_of_its_parts():
    made = plan(PAIR, "LRS-2-up-HRS-9", 4, batch_size=2, measure=True, n_steps_each=5)
    unit = made.unit_seconds
    assert set(unit) == {"4x4", "8x8", "upsample 8x8"} and min(unit.values()) > 0
    assert made.seconds == pytest.approx(2 * (10 * unit["4x4"] + unit["upsample 8x8"] + 46 * unit["8x8"]))
    text = str(made)
    for part in ("LRS-2-up-HRS-9: 4 samples of 1x8x8", "stage 1: upsample to 8x8", "10 evaluations at 4x4", "about"):
        assert part in text
    assert "add noise of sigma 0.599" in str(plan(PAIR, "LRS-2-up-HRS-9", renoise=True))
    assert plan(PAIR, "LRS-2-up-HRS-9").seconds is None


def test_schemes_with_one_beginning_share_its_states():
    taken = {}
    for scheme in ("LRS", "LRS-up-HRS-3", "LRS-2-up-HRS-9"):
        _, info = sample(PAIR, scheme, 3, snapshot="levels", return_info=True, **PAPER, n_steps_each=3)
        taken[scheme] = info["snapshots"]
    assert all(torch.equal(a, b) for a, b in zip(taken["LRS"], taken["LRS-up-HRS-3"], strict=False))
    assert all(torch.equal(a, b) for a, b in zip(taken["LRS"][:2], taken["LRS-2-up-HRS-9"][:2], strict=True))


def test_snapshots_hold_levels_and_upsampled_images():
    x, info = sample(
        PAIR, "LRS-2-up-HRS-2", 3, snapshot="levels", return_info=True, batch_size=2, **PAPER, n_steps_each=2
    )
    places = info["snapshot_places"]
    assert [place["kind"] for place in places] == ["step", "step", "upsample", "step", "step"]
    assert [tuple(s.shape[2:]) for s in info["snapshots"]] == [(4, 4)] * 2 + [(8, 8)] * 3
    assert torch.equal(info["snapshots"][-1], x) and info["settings"]["scheme"] == "LRS-2-up-HRS-2"
    up = upsampling_matrix(LOW.shape, "bicubic")
    assert np.abs(info["snapshots"][2].flatten(1).numpy() - info["snapshots"][1].flatten(1).numpy() @ up.T).max() < 1e-6
    assert len(info["diagnostics"]) == 4 and [d["stage"] for d in info["diagnostics"]] == [0, 0, 2, 2]


# --- settings of each resolution ---
def test_settings_of_each_resolution():
    ladder = geometric(1, 0.02, 6)
    stages = plan(PAIR, "LRS-6-up-HRS-2", eps=[1e-5, 4e-5], n_steps_each=[2, 5], sigmas=[ladder, None]).stages
    low, high = stages[0].rows, stages[2].rows
    assert len(low) == 12 and len(high) == 11
    assert low[0].score_coef == pytest.approx(1e-5 / 2 * (1 / 0.02) ** 2) and low[-1].sigma == pytest.approx(0.02)
    assert high[-2].score_coef == pytest.approx(2e-5) and high[-2].noise_coef == pytest.approx(np.sqrt(4e-5))
    rows = plan(PAIR, "LRS-2-up-HRS-9", step_lr=[1e-5, 2e-5], **QUICK).stages[2].rows
    assert rows[-1].score_coef == pytest.approx(HIGH.sigmas[-1].item() ** 2) and rows[-2].score_coef == pytest.approx(
        2e-5
    )
    arguments = {"eps": [1e-5, 4e-5], "n_steps_each": [2, 5], "sigmas": [ladder, None]}
    x = run(PAIR, "LRS-6-up-HRS-2", **arguments)
    assert np.abs(x - path(plan(PAIR, "LRS-6-up-HRS-2", **arguments).stages, PAIR, 3, seed=0)).max() < 1e-12


def test_reference_level():
    by_ladder, by_stage, by_number = (
        plan(PAIR, "LRS-2-up-HRS-9", sigma_ref=reference).stages[0].rows for reference in (None, "stage", 0.1)
    )
    sigmas = LOW.sigmas.tolist()
    assert by_ladder[0].score_coef == pytest.approx(1e-5 * (sigmas[0] / sigmas[-1]) ** 2)
    assert by_stage[0].score_coef == pytest.approx(1e-5 * (sigmas[0] / sigmas[1]) ** 2)
    assert by_number[0].score_coef == pytest.approx(1e-5 * (sigmas[0] / 0.1) ** 2)


@pytest.mark.parametrize("shape", [(3, 4, 8), (2, 2, 6)])
def test_colour_and_oblong_images_in_any_batches(shape):
    field = GaussianField(shape, sigmas=geometric(1, 0.05, 4))
    models = [field.pooled(2), field]
    x = run(models, "LRS-2-up-HRS-2", 5, first=7, renoise=True)
    exact = path(plan(models, "LRS-2-up-HRS-2", renoise=True, **QUICK).stages, models, 5, seed=0, first=7)
    assert np.abs(x - exact).max() < 1e-12
    single = sample(models, "LRS-2-up-HRS-2", 5, renoise=True, **QUICK)
    split = sample(models, "LRS-2-up-HRS-2", 5, renoise=True, batch_size=2, **QUICK)
    tail = sample(models, "LRS-2-up-HRS-2", 2, renoise=True, first=3, **QUICK)
    assert torch.equal(single, split) and torch.equal(single[3:], tail)


def test_settings_of_each_resolution_as_arrays():
    by_list = run(PAIR, "LRS-2-up-HRS-2", eps=[1e-5, 4e-5], n_steps_each=[2, 3], sigmas=[LOW.sigmas, HIGH.sigmas])
    arrays = {"eps": torch.tensor([1e-5, 4e-5], dtype=torch.float64), "n_steps_each": np.array([2, 3])}
    assert np.array_equal(by_list, run(PAIR, "LRS-2-up-HRS-2", sigmas=torch.stack([LOW.sigmas, HIGH.sigmas]), **arrays))


def test_networks_that_upsample_are_tried_first_and_left_as_they_are():
    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(1)

        def forward(self, x):
            assert not self.training
            return torch.nn.functional.interpolate(self.norm(x), scale_factor=2)

    double = Doubling()
    assert plan(PAIR, "LRS-up", upsample=double, measure=True, n_steps_each=1).seconds > 0
    assert double.training and torch.equal(double.norm.running_mean, torch.zeros(1))
    counting = Counting(LOW)
    with pytest.raises(ValueError, match="upsample must return images"):
        sample([counting, HIGH], "LRS-up", 2, upsample=lambda x: x, **QUICK)
    assert counting.calls == 0


def test_predicted_seconds_count_a_smaller_last_batch_by_its_size():
    made = plan(PAIR, "LRS-1-up", 5, batch_size=2, n_steps_each=1, denoise=False, measure=True)
    assert made.seconds == pytest.approx(2.5 * sum(made.unit_seconds.values()))


def test_any_callable_upsamples():
    double = torch.nn.Upsample(scale_factor=2, mode="nearest")
    assert np.array_equal(run(PAIR, "LRS-up-HRS-3", upsample=double), run(PAIR, "LRS-up-HRS-3", upsample="nearest"))


# --- inpainting ---
def pooled(image, mask, shape):
    """Means of 2 x 2 blocks, and which blocks are known as a whole."""
    height, width = shape[1] // 2, shape[2] // 2
    blocks = [a.reshape(shape[0], height, 2, width, 2) for a in (image, mask)]
    return blocks[0].mean((2, 4)).ravel(), blocks[1].all((2, 4)).ravel()


@pytest.mark.parametrize("scheme", ["LRS-2-up-HRS-3", "LRS-2-up", "HRS-2"])
def test_inpainting_at_each_resolution(scheme):
    known = np.linspace(0.1, 0.9, 64)
    mask = np.zeros((8, 8), bool)
    mask[:, :3] = True  # the third column is half a block
    mask[5, 6] = True
    pixels = [pooled(known, mask.ravel(), HIGH.shape), (known, mask.ravel())]
    assert pixels[0][1].sum() == 4
    arguments = {"known": torch.from_numpy(known.reshape(1, 8, 8)), "mask": torch.from_numpy(mask[None])}
    stages = plan(PAIR, scheme, **QUICK, **arguments).stages
    x = run(PAIR, scheme, 4, batch_size=3, **arguments)
    assert np.abs(x - path(stages, PAIR, 4, seed=0, pixels=pixels)).max() < 1e-7  # sigma y in float32
    last = 2 if scheme == "LRS-2-up" else 10  # the level whose noise the known pixels end with
    spread = (x[:, mask.ravel()] - known[mask.ravel()]).std()
    assert 0.5 < spread / HIGH.sigmas[last - 1].item() < 1.5


def test_inpainting_nothing_changes_nothing():
    arguments = {"known": torch.rand(1, 8, 8), "mask": torch.zeros(1, 8, 8)}
    assert np.array_equal(run(PAIR, "LRS-2-up-HRS-3"), run(PAIR, "LRS-2-up-HRS-3", **arguments))


def test_inpainting_of_each_sample_and_of_the_low_resolution():
    known, mask = torch.rand(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    x = run(PAIR, "LRS-3", known=known, mask=mask, denoise=False)
    assert np.abs(x - known.flatten(1).numpy()).max() < 6 * LOW.sigmas[2].item()
    assert np.abs(x - known.flatten(1).numpy()).max() > 0


# --- continuation ---
class Stop(Exception):
    pass


@pytest.mark.parametrize("updates", [2, 6, 7, 11, 19])
def test_stopped_runs_continue_bit_for_bit(tmp_path, monkeypatch, updates):
    monkeypatch.setattr("langevin_ext.samplers.record.SAVING_SHARE", 1e9)  # a checkpoint after every update
    arguments = {"batch_size": 2, "renoise": True, "snapshot": "levels", "return_info": True, **QUICK}
    whole, info = sample(PAIR, "LRS-2-up-HRS-2", 3, **arguments)
    seen = []

    def stop(_):
        seen.append(1)
        if len(seen) == updates:
            raise Stop

    file = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        sample(PAIR, "LRS-2-up-HRS-2", 3, checkpoint=file, callback=stop, **arguments)
    again, second = sample(PAIR, "LRS-2-up-HRS-2", 3, checkpoint=file, **arguments)
    assert torch.equal(whole, again)
    assert all(torch.equal(a, b) for a, b in zip(info["snapshots"], second["snapshots"], strict=True))
    assert sum(second["calls"].values()) < sum(info["calls"].values())
    for other in ({"upsample": "nearest"}, {"upsample": torch.nn.Upsample(scale_factor=2)}, {"eps": [2e-5, 1e-5]}):
        with pytest.raises(ValueError, match=f"another {next(iter(other))}"):
            sample(PAIR, "LRS-2-up-HRS-2", 3, checkpoint=file, **arguments, **other)


# --- messages ---
@pytest.mark.parametrize(
    ("models", "arguments", "message"),
    [
        ([HIGH, LOW], {}, r"coarsest first, .* got shapes \(1, 8, 8\), \(1, 4, 4\) \(the list looks reversed\)"),
        ([LOWEST, HIGH], {}, r"twice the height and width of the one before, got shapes \(1, 2, 2\), \(1, 8, 8\)"),
        ([GaussianField((3, 4, 4)), HIGH], {}, "channels and twice the height"),
        ([GaussianField((1, 4, 3)), HIGH], {}, "twice the height and width"),
        ([GaussianField((1, 7, 4)), GaussianField((1, 15, 8))], {}, "twice the height and width"),
        (HIGH, {"scheme": "LRS-up"}, "for one model, got 'LRS-up'"),
        (PAIR, {"eps": [1e-5]}, "eps must be one value or a list of 2, one for each model, got 1"),
        (PAIR, {"step_lr": [1e-5, -1]}, "step_lr must be a positive number, got -1"),
        (PAIR, {"n_steps_each": [1, 2, 3]}, "n_steps_each must be one value or a list of 2"),
        (PAIR, {"sigmas": [LOW.sigmas]}, "sigmas must be one ladder or a list of 2, one for each model, got 1"),
        (PAIR, {"eps": [2e-5, 1]}, "eps must be below 4 sigma"),
        (PAIR, {"sigma_ref": "run"}, "sigma_ref must be a positive number or 'stage', got 'run'"),
        (PAIR, {"sigma_ref": True}, "sigma_ref must be a positive number or 'stage', got True"),
        (PAIR, {"renoise": "no"}, "renoise must be True or False, got 'no'"),
        (PAIR, {"renoised": True}, "has the options sigma_ref, renoise, inpaint_order, got 'renoised'"),
        (PAIR, {"upsample": lambda x: x}, r"upsample must return images of shape \(1, 1, 8, 8\) for \(1, 1, 4, 4\)"),
        (PAIR, {"upsample": lambda x: None}, "got NoneType"),
        (PAIR, {"known": torch.rand(1, 4, 4), "mask": torch.ones(1, 4, 4)}, r"known must have shape \(1, 8, 8\)"),
        (PAIR, {"init": torch.rand(3, 1, 8, 8)}, r"init must have shape \(3, 1, 4, 4\)"),
    ],
)
def test_messages(models, arguments, message):
    with pytest.raises(ValueError, match=message), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample(models, arguments.pop("scheme", "LRS-2-up-HRS-2"), 3, **(QUICK | arguments))


def test_upsampling_to_values_that_are_not_finite_is_named():
    with pytest.raises(FloatingPointError, match="upsample returned values that are not finite"):
        sample(PAIR, "LRS-up", 3, upsample=lambda x: x.repeat(1, 1, 2, 2) * float("nan"), **QUICK)
