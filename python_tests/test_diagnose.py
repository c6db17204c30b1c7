"""`diagnose`: exact scores pass, planted errors are found where they are, and the numbers are those of closed forms."""

import json
import math

import pytest
import torch
from click.testing import CliRunner

from langevin_ext import noise
from langevin_ext.commands.diagnose import diagnose as command
from langevin_ext.data import open_dataset
from langevin_ext.diagnostics import Estimate, diagnose
from langevin_ext.diagnostics.estimate import difference, estimate, quotient, threshold
from langevin_ext.diagnostics.expected import Expected, discretisation
from langevin_ext.sampling import plan
from langevin_ext.schedules import geometric_sigmas
from langevin_ext.scores import Empirical, Gaussian, GaussianField, GaussianMixture, ScoreFunction

FIELD = GaussianField((1, 8, 8))
TRAIN, FRESH = FIELD.sample(400, seed=1), FIELD.sample(400, seed=2)
QUIET = {"progress": False}


def scaled(factor, field=FIELD):
    return ScoreFunction(lambda x, sigma: factor * field.at_sigma(x, sigma.flatten()), field.sigmas, field.shape)


@pytest.fixture(scope="module")
def exact():
    return diagnose(FIELD, TRAIN, FRESH, exact=FIELD, **QUIET)


@pytest.fixture(scope="module")
def memoriser():
    return diagnose(Empirical(TRAIN[:100]), TRAIN[:100], FRESH, **QUIET)


# --- exact scores ---
def test_the_exact_score_of_a_field_is_trusted(exact):
    assert exact.verdict == "trusted" and exact.trusted and not exact.failed
    assert [check.passed for check in exact.checks] == [True] * 7
    assert "trusted" in str(exact) and "of level" in str(exact)


def test_the_exact_score_of_a_mixture_is_trusted():
    mixture = GaussianMixture([[-5.0, -5], [5, 5]], [0.2, 0.8], 1.0, sigmas=geometric_sigmas(20, 1, 10))
    found = diagnose(
        mixture, mixture.sample(500, 1), mixture.sample(500, 2), exact=mixture, eps=0.1, init="normal", **QUIET
    )
    assert found.trusted, str(found)


@pytest.mark.parametrize("seed", range(3))
def test_false_alarms_are_rare(seed):
    field = GaussianField((1, 4, 4), sigmas=geometric_sigmas(1, 0.1, 4))
    one, other = field.sample(64, 2 * seed), field.sample(64, 2 * seed + 1)
    assert diagnose(field, one, other, seed=seed, eps=2e-3, n_steps_each=20, **QUIET).trusted


def test_losses_of_the_exact_score_are_optimal(exact):
    # 1/2 tr(C (C + sigma^2 I)^-1) of the field, known to seven digits; four standard errors of the images' own means
    optimal = [1.016825, 1.925358, 3.437405, 5.742365, 8.847404, 12.633031, 17.015482, 21.715784, 26.029298, 29.123109]
    for level, value in zip(exact.levels, optimal, strict=True):
        assert abs(level.loss.beyond(value)) < 4 and abs(level.held_out_loss.beyond(value)) < 4
        assert level.exact_loss == level.held_out_loss and level.zero_loss == 32
        # of the covariance of 400 images with 64 values, which is 4 % off at worst
        assert level.gaussian_loss == pytest.approx(value, rel=0.04)
        assert level.error == level.path_error == Estimate(0.0, 0.0)


def test_drift_of_the_exact_score_is_that_of_the_step_size():
    # data in one point at sigma: V goes to sigma^2 / (1 - alpha / (4 sigma^2)), which the bound says exactly
    point = Gaussian(torch.zeros(64), variance=0.0, sigmas=[0.1])
    alpha = 2 * 0.1**2 * 0.1  # eps = 0.2 sigma^2
    assert discretisation(alpha, 0.1) == pytest.approx(1 / (1 - 0.05) - 1)
    data = torch.zeros(64, 64, 1, 1)
    found = diagnose(point, data, data + 0.0, chains=64, eps=alpha, n_steps_each=100, start_steps=100, **QUIET)
    level = found.levels[0]
    assert abs(level.held_out_drift.beyond(level.drift_allowed)) < 4
    assert abs(level.norm.beyond(0.01 / 0.95)) < 4 and level.norm_sampler == pytest.approx(0.01 / 0.95)
    assert found.trusted


def test_norms_of_the_sampler_are_its_law():
    # one pixel, mean 0.5, variance 0.0625, ten levels of 100 steps with eps = 2e-5: known variances after each level
    known = [1.114969133124, 0.4406498469732, 0.1983381048499, 0.1113015655142, 0.0804663538605]
    known += [0.0708074493421, 0.0678632327630, 0.0668749066876, 0.0665284881516, 0.0664051086641]
    sigmas = torch.logspace(0, -2, 10, dtype=torch.float64)
    field = Gaussian(0.5, variance=0.0625, sigmas=sigmas, shape=(1, 1, 1))
    images = torch.tensor([0.25, 0.75] * 4, dtype=torch.float64).reshape(8, 1, 1, 1)  # of this mean and variance
    expected = Expected.of(images)
    found = expected.norms_of_sampler(plan(field, "annealed", 1, denoise=False).stages, "uniform")
    assert found == pytest.approx(known, rel=1e-9)
    assert expected.norm(0.1).value == pytest.approx(0.0725) and expected.gaussian_loss(0.1) == pytest.approx(
        0.5 / 1.16
    )


# --- planted errors ---
def test_a_memoriser_is_found(memoriser):
    assert memoriser.verdict == "not trusted"
    assert {"loss", "memory", "starts"} <= set(memoriser.failed)
    last = memoriser.levels[-1]
    # at small sigma the pull goes to the point that x came from (loss 0), or to the nearest other one
    assert last.loss.value < 1 and last.held_out_loss.value > 100 * last.zero_loss
    assert last.moved.value < 1.5 < 20 < last.held_out_moved.value
    assert last.index in memoriser["memory"].levels
    assert "never from the training data" in str(memoriser)


def test_without_held_out_data_memory_stays_unknown():
    found = diagnose(Empirical(TRAIN[:100]), TRAIN[:100], **QUIET)
    assert found["memory"].passed is None and found["starts"].passed is None
    assert found.levels[0].gap is None and found.gap is None
    assert "memorisation cannot be seen" in str(found)


def test_a_small_gap_restricts_the_starts():
    """A score that is exact but near its training data, where it pulls a little more: only chains from there differ."""
    memory = Empirical(TRAIN)
    mixed = ScoreFunction(
        lambda x, sigma: 0.9 * FIELD.at_sigma(x, sigma.flatten()) + 0.1 * memory.at_sigma(x, sigma.flatten()),
        FIELD.sigmas,
        FIELD.shape,
    )
    found = diagnose(mixed, TRAIN, FRESH, levels=[2, 3], n_steps_each=10, **QUIET)
    assert found["memory"].passed is False and found.verdict == "trusted from fresh starts only", str(found)


@pytest.mark.parametrize("factor, way", [(1.1, "inwards"), (0.9, "outwards")])
def test_a_wrong_scale_is_found(factor, way):
    found = diagnose(scaled(factor), TRAIN, FRESH, levels=[0, 5, 9], **QUIET)
    assert found.verdict == "not trusted" and found["scale"].levels == (0, 5, 9)
    assert way in found["scale"].sentence and found["memory"].passed
    for level in found.levels:
        assert abs(level.held_out_scale.beyond(factor)) < 4


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_wrong_scale_moves_the_norm(factor):
    # the chain at the first level goes to the variance (0.0625 + 1) / factor
    found = diagnose(scaled(factor), TRAIN, FRESH, levels=[0], chains=64, start_steps=100, **QUIET)
    assert {"scale", "drift", "norm"} <= set(found.failed)
    assert found.levels[0].norm.value == pytest.approx(1.0625 / factor, rel=0.15)
    grown = "outwards" if factor < 1 else "contract"
    assert grown in found["drift"].sentence


def test_a_diverging_chain_is_reported():
    found = diagnose(scaled(-3.0), TRAIN, FRESH, n_steps_each=2000, start_steps=2000, levels=[0, 9], **QUIET)
    assert found.verdict == "not trusted" and math.isinf(found.levels[-1].norm.value)
    assert "diverge" in str(found)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_an_error_away_from_the_data_is_found():
    """The field of arXiv:2603.11319, theorem 1: right where the data are, wrong where the chain starts."""
    d, level = 50, [0.5]
    target = Gaussian(torch.full((d,), 6.0), variance=1.0, sigmas=level)

    def trapped(x, sigma):
        inside = x.flatten(1).norm(dim=1) < 2 * math.sqrt(d)
        return torch.where(inside[:, None, None, None], -2 * x, target.at_sigma(x, sigma.flatten()))

    model = ScoreFunction(trapped, level, target.shape)
    sets = target.sample(200, 1), target.sample(200, 2)
    found = diagnose(model, *sets, exact=target, eps=0.05, n_steps_each=200, init="normal", **QUIET)
    assert set(found.failed) == {"norm", "error"}  # every loss is that of the exact score
    assert found.levels[0].error.value == 0 and found.levels[0].path_error.value > 0.1
    assert "not where the data are" in found["error"].sentence


def test_each_set_has_noise_of_its_own():
    # the same images twice: with the same noise the gap would be 0, and its standard error wrong
    level = diagnose(FIELD, TRAIN, TRAIN.clone(), levels=[3], n_steps_each=2, **QUIET).levels[0]
    assert level.gap.value != 0 and level.drift != level.held_out_drift


# --- estimates ---
def test_estimates():
    values = torch.tensor([1.0, 2, 3, 4])
    assert estimate(values) == pytest.approx((2.5, math.sqrt(5 / 3) / 2))
    assert difference(Estimate(3, 0.3), Estimate(1, 0.4)) == pytest.approx((2, 0.5))
    assert quotient(2 * values, values) == pytest.approx((2, 0))
    assert Estimate(3, 0.5).beyond(1) == 4 and Estimate(3, 0).beyond(1) == math.inf and Estimate(3, 0).beyond(3) == 0
    assert estimate(torch.tensor([1.0, math.inf])).value == math.inf


def test_error_of_a_quotient():
    above, below = (3 + noise.normal((2, 100_000), seed)[0] for seed in (1, 2))
    found = [quotient(a, b) for a, b in zip(above.chunk(500), below.chunk(500), strict=True)]
    spread = torch.tensor([one.value for one in found]).std().item()
    # 500 replicates know a standard deviation to 3 %, the expansion is off by 1/200
    assert spread == pytest.approx(sum(one.stderr for one in found) / 500, rel=4 * 0.032 + 0.01)


@pytest.mark.parametrize("n, exact_value", [(10, 4.7809), (25, 3.7454), (100, 3.3915), (10**6, 3.2905)])
def test_threshold_is_students_quantile(n, exact_value):
    # t tables at the two-sided level 0.001 with n - 1 degrees of freedom; the next term is of order (n - 1)^-4
    assert threshold(0.01, 10, n) == pytest.approx(exact_value, rel=0.005 if n < 20 else 5e-4)


# --- what it returns ---
def test_results_are_functions_of_the_seed(exact):
    again = diagnose(FIELD, TRAIN, FRESH, exact=FIELD, **QUIET)
    assert again.levels == exact.levels
    other = diagnose(FIELD, TRAIN, FRESH, exact=FIELD, seed=1, levels=[0], **QUIET)
    assert other.levels[0].loss != exact.levels[0].loss


def test_dictionary_and_picture(exact, memoriser, tmp_path):
    facts = json.loads(json.dumps(exact.to_dict(), allow_nan=False))
    assert facts["verdict"] == "trusted" and len(facts["levels"]) == 10
    assert facts["levels"][0]["loss"] == {"value": exact.levels[0].loss.value, "stderr": exact.levels[0].loss.stderr}
    for one in (exact, memoriser):
        assert one.plot(tmp_path / "diagnosis.png").stat().st_size > 20_000
    assert memoriser.markdown().startswith("## Diagnosis")
    with pytest.raises(KeyError, match="name must be one of loss, memory"):
        exact["nothing"]


def test_remarks_about_the_ladder(exact):
    text = " ".join(exact.remarks)
    assert "below the largest distance" in text and "24 levels down to 0.01" in text
    wide = GaussianField((1, 8, 8), sigmas=geometric_sigmas(20, 0.1, 24))
    assert diagnose(wide, TRAIN, FRESH, n_steps_each=5, eps=2e-3, levels=[0], **QUIET).remarks == ()


def test_ten_of_many_levels_are_looked_at():
    field = GaussianField((1, 4, 4), sigmas=geometric_sigmas(1, 0.01, 40))
    found = diagnose(field, field.sample(32, 1), n_steps_each=2, start_steps=2, chains=8, **QUIET)
    assert [level.index for level in found.levels] == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]


# --- what is refused ---
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n": 7}, "diagnose: argument n must be an integer of at least 8, got 7"),
        ({"chains": 2.0}, "diagnose: argument chains must be an integer of at least 8, got 2.0"),
        ({"alarm": 0}, r"diagnose: argument alarm must be in \(0, 1\), got 0"),
        ({"levels": [10]}, "diagnose: argument levels must be indices into the 10 sigmas"),
        ({"levels": []}, "diagnose: argument levels must be indices into the 10 sigmas"),
        ({"held_out": TRAIN}, "diagnose: argument held_out must be data that the model was not trained on"),
        ({"held_out": TRAIN[:4]}, "diagnose: argument held_out must hold at least 8 images, got 4"),
        ({"held_out": TRAIN[..., :4]}, r"diagnose: argument held_out must be a dataset or .* \(1, 8, 8\), got"),
        ({"held_out": TRAIN * math.nan}, "diagnose: argument held_out must be finite"),
        ({"start_steps": 0}, "argument start_steps must be an integer of at least 1"),
        ({"eps": 1.0}, "must be below 4 sigma"),
        ({"eps": 1e-5, "step_lr": 1e-5}, "diagnose: arguments eps and step_lr are two conventions"),
        ({"init": "elsewhere"}, "init must be one of"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagnose(FIELD, TRAIN, **(QUIET | arguments))


def test_an_exact_score_must_have_any_level():
    with pytest.raises(TypeError, match="diagnose: argument exact must have at_sigma"):
        diagnose(FIELD, TRAIN, exact=lambda x, level: x, **QUIET)


def test_fingerprints_are_compared():
    digits = open_dataset("digits")
    model = scaled(1.0)
    model.data_fingerprint = "another"
    found = diagnose(model, digits, levels=[0], n=16, n_steps_each=2, **QUIET)
    assert "not those that the model was trained on" in found.remarks[0]
    model.data_fingerprint = digits.split("test").fingerprint
    with pytest.raises(ValueError, match="held_out must be data that the model was not trained on"):
        diagnose(model, digits, digits.split("test"), **QUIET)


# --- the command ---
def test_command_writes_its_findings(tmp_path):
    options = "--model digits --data digits --images 16 --chains 8 --steps-each 1 --start-steps 1".split()
    run = CliRunner().invoke(command, [*options, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert run.exit_code == 0 and "Verdict:" in run.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"diagnosis.json", "diagnosis.md", "diagnosis.png"}
    facts = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert facts["model"]["path"] == "digits" and "297 images" in facts["held_out"]["name"]
    assert "![measurements](diagnosis.png)" in (tmp_path / "out" / "diagnosis.md").read_text()
    with pytest.raises(ValueError, match="--out must be a new or empty folder"):
        CliRunner().invoke(command, [*options, "--out", str(tmp_path / "out")], catch_exceptions=False)
