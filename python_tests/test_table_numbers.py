"""The numbers of a table: seconds, measured and predicted, distances; and its messages."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from multiresolution_oracle import law
from sampling_helpers import Counting
from table_helpers import IMAGES, PAIR, QUICK, SETTINGS, own_sample

from langevin_ext import experiments, metrics, plan
from langevin_ext._progress import Progress
from langevin_ext.experiments import timing
from langevin_ext.experiments.distances import exact_distances
from langevin_ext.experiments.parts import run_part
from langevin_ext.experiments.shared_runs import SharedRuns
from langevin_ext.experiments.tables import paper_table
from langevin_ext.metrics import PixelFeatures, Statistics
from langevin_ext.samplers.record import Checkpoint
from langevin_ext.scores import GaussianField


# --- seconds ---
def test_seconds_of_parts_add_up(monkeypatch):
    """Times as if a step took 3 s at the low and 5 s at the high resolution, and an upsampling 7 s, for a batch."""
    shared = SharedRuns(PAIR, paper_table(1).schemes, 30, **SETTINGS, denoise=False)
    records = []
    for part in shared.parts:
        job = shared.jobs[part.schemes[0]]
        made = [7.0 if not stage.rows else 2 * (3.0, 5.0)[stage.model] for stage in part.stages for _ in _marks(stage)]
        records.append(run_part_like(job, part, torch.tensor([made] * 2, dtype=torch.float64)))
    records[0].times[0, 0] += 100  # one slow level counts in the sum but not in the medians
    for record in records:
        record.times[1] /= 2  # the last batch is half of one, and no unit is taken from it
    measured, predicted, units = timing.by_parts(shared, records, n=20)
    assert units == {"2x2": 3.0, "4x4": 5.0, "upsample 4x4": 7.0}
    each = {"LRS": 60, "HRS": 100, "LRS-up": 67, "LRS-up-HRS-3": 97, "LRS-up-HRS-9": 157, "LRS-2-up-HRS-9": 109}
    assert predicted == pytest.approx([1.5 * seconds * 20 / 30 for seconds in each.values()])
    head = [0 if scheme == "HRS" else 100 for scheme in each]  # of the level 1, which all but HRS begin with
    assert measured == pytest.approx([(1.5 * s + h) * 20 / 30 for s, h in zip(each.values(), head, strict=True)])
    spent, alone = timing.saved_seconds(shared, records)
    assert alone == pytest.approx(sum(measured) * 30 / 20)
    assert spent == pytest.approx(1.5 * (60 + 7 + 100 + 30 + 90 + 97) + 100)


def _marks(stage):
    return stage.level_ends or [None]


def run_part_like(job, part, times):
    record = run_part(
        replace(
            job,
            plan=replace(job.plan, stages=list(part.stages), n=1, output=part.stages[-1].model),
            init=torch.zeros(1, *job.plan.shapes[part.stages[0].model - (not part.stages[0].rows)]),
        )
    )
    record.times = times
    return record


def test_times_are_of_the_updates_and_not_of_saving(tmp_path, monkeypatch):
    class Slow(Counting):
        def __call__(self, x, level):
            time.sleep(0.004)
            return super().__call__(x, level)

    def save(self, record, plain=Checkpoint.save):
        time.sleep(0.1)
        plain(self, record)

    monkeypatch.setattr("langevin_ext.samplers.record.SAVING_SHARE", 1e9)  # a checkpoint after every update
    monkeypatch.setattr(Checkpoint, "save", save)
    shared = SharedRuns([PAIR[0], Slow(PAIR[1])], ["HRS"], 5, **SETTINGS, denoise=True)
    record = run_part(shared.jobs[0], path=tmp_path / "t.safetensors")
    assert record.times.shape == (1, 11) and record.times.min() > 0
    assert (record.times[0, :10] > 2 * 0.004).all() and record.times.sum() < 20 * 0.1


def test_whole_runs_in_turn(tmp_path, monkeypatch):
    order, ticks = [], itertools.count()

    def fake_units(job, record):
        order.append("unit")
        k = next(ticks)
        return {"2x2": [3.0, 3.0 + k], "upsample 4x4": [7.0 + (k == 2)], "4x4": [5.0]}

    def fake_sample(models, scheme, n, **arguments):
        assert n == 20 and arguments.pop("progress") is False and arguments == SETTINGS | {"denoise": False}
        order.append(scheme)

    clock = itertools.count(0.0, 2.5)
    monkeypatch.setattr(timing, "unit_times", fake_units)
    monkeypatch.setattr(timing.sampling, "sample", fake_sample)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    schemes = ["HRS", "LRS-up"]
    whole = timing.WholeRuns(PAIR, schemes, 20, 3, **SETTINGS, denoise=False)
    assert whole.steps == 3 * (20 + 20 + 2 * 8)
    monkeypatch.setattr(timing, "run_part", lambda job: None)
    with timing_bar(whole.steps) as bar:
        measured, predicted, units = whole.run(tmp_path / "times.safetensors", bar)
        assert bar.n == whole.steps
    assert order == ["unit", "HRS", "unit", "LRS-up"] * 3 and measured == [2.5, 2.5]
    # medians of the pairs are 3 + k/2, k = 0 .. 5; the median of six is the lower middle one, as torch has it
    assert units == {"2x2": 4.0, "upsample 4x4": 7.0, "4x4": 5.0}
    assert predicted == [20 * 5.0, 20 * 4.0 + 7.0]
    again = timing.WholeRuns(PAIR, schemes, 20, 3, **SETTINGS, denoise=False)
    with timing_bar(again.steps) as bar:
        assert again.run(tmp_path / "times.safetensors", bar) == (measured, predicted, units)
    assert len(order) == 12
    with pytest.raises(ValueError, match="another schemes"):
        timing.WholeRuns(PAIR, ["HRS"], 20, 3, **SETTINGS, denoise=False).run(tmp_path / "times.safetensors", bar)


def timing_bar(total):
    return Progress(total, "timing", "step", shown=False)


def test_whole_runs_are_made_where_they_are_cheap():
    shared = SharedRuns(PAIR, paper_table(1).schemes, 50, **SETTINGS, denoise=False)
    # distinct: 20 evaluations of 4 pixels and 62 of 16; separate: 84 and 62; ratio 1.239, three rounds of n in 50
    assert timing.whole_is_cheap(shared, 1, 3) and not timing.whole_is_cheap(shared, 2, 3)
    assert timing.whole_is_cheap(shared, 4, 1) and not timing.whole_is_cheap(shared, 5, 1)


def test_timing_by_whole_runs_in_a_table(tmp_path):
    few = {**QUICK, "samples": 20, "n": 8, "n_steps_each": 1}
    made = experiments.table(1, *PAIR, **(few | {"time_rows": True}))
    assert made.timing["how"] == "whole runs" and made.timing["n"] == made.timing["batch_size"] == 8
    assert set(made.timing["units"]) == {"2x2", "upsample 4x4", "4x4"} and min(made.timing["units"].values()) > 0
    assert all(row.seconds > 0 and row.predicted > 0 for row in made.rows) and made.rows[1].ratio == 1.0
    assert any("the median of 3 in turn" in note for note in made.notes)
    assert experiments.table(1, *PAIR, **(few | {"time_rows": None})).timing["how"] == "parts"
    assert experiments.table(1, *PAIR, **(few | {"time_rows": None, "n": 1, "samples": 60})).timing["how"] != "parts"


# --- distances ---
def test_exact_distances_are_the_papers_algorithm_on_a_gaussian_field():
    """Fields of 8x8 and 4x4 at the paper's settings; to half a unit of the last printed digit."""
    high = GaussianField((1, 8, 8))
    shared = SharedRuns([high.pooled(2), high], paper_table(1).schemes, 10, denoise=False)
    expected = [0.000871, 0.003896, 0.308576, 0.025016, 0.003533, 0.004103]
    assert exact_distances(shared.jobs, PixelFeatures()) == pytest.approx(expected, abs=1.1e-6)
    assert exact_distances(shared.jobs, PixelFeatures(clip=True)) == [None] * 6
    up = SharedRuns([high.pooled(2), high], ["LRS-up"], 10, denoise=False, upsample=torch.nn.Upsample(scale_factor=2))
    assert exact_distances(up.jobs, PixelFeatures()) == [None]


def test_distances_of_exact_scores_are_those_of_their_laws():
    n = 400
    made = experiments.table(1, *PAIR, **(QUICK | {"samples": n, "batch_size": 100, "n_steps_each": 10}))
    generator = np.random.default_rng(0)
    for row in made.rows:
        stages = plan(PAIR, row.scheme, n, n_steps_each=10, denoise=False).stages
        covariance = law(stages, PAIR)
        target = PAIR[stages[-1].model].covariance()
        half, center = torch.full((len(target),), 0.5, dtype=torch.float64), torch.from_numpy(covariance)
        assert row.exact == pytest.approx(metrics.frechet_distance(half, center, half, target), rel=1e-6, abs=1e-9)
        # n draws from the exact law are as far from the data, on average and in spread, as the samples must be
        draws = generator.multivariate_normal(half.numpy(), covariance, size=(40, n), method="eigh")
        reference = Statistics(half, target)
        far = np.array([metrics.frechet_samples(torch.from_numpy(x), reference) for x in draws])
        assert abs(row.distance - far.mean()) < 4 * far.std()
        assert 0.4 < row.deviation / far.std() < 2.5  # of 20 replicates, and the bootstrap's own error
        assert row.reference == "the exact law of " + ("1x2x2" if row.scheme == "LRS" else "1x4x4")


def test_rows_are_compared_at_their_own_resolution():
    made = experiments.table(1, *PAIR, reference=IMAGES, **QUICK)
    for row in made.rows:
        images = IMAGES[row.scheme != "LRS"]
        expected = metrics.frechet_samples(own_sample(row.scheme), images)
        assert row.distance == pytest.approx(expected, rel=1e-9) and row.exact is not None
        assert row.reference == f"60 images of {'1x2x2' if row.scheme == 'LRS' else '1x4x4'}"


def test_few_reference_images_are_warned_of_too():
    with pytest.warns(metrics.FewSamplesWarning, match="10 samples are fewer than the 16 features"):
        experiments.table(1, *PAIR, reference=[IMAGES[0], IMAGES[1][:10]], **(QUICK | {"n_steps_each": 1}))


# --- messages ---
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 5}, "table: argument number must be one of 1, 2, 3, 4, got 5"),
        ({"samples": 1}, "samples must be an integer of at least 2"),
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"batch_size": None}, "batch_size must be an integer of at least 1, got None"),
        ({"n_steps_each": 0}, "n_steps_each must be at least 1, got 0"),
        ({"n_steps_each": [0, 2]}, "n_steps_each must be at least 1, got 0"),
        ({"low": PAIR[1], "high": PAIR[0]}, "the list looks reversed"),
        ({"low": GaussianField((1, 2, 2), sigmas=[1.0, 0.1])}, "must have 10 noise levels.* got 2 and 10"),
        ({"features": PixelFeatures(clip=True)}, "reference must be given, unless the models are exact"),
        ({"reference": IMAGES[:1]}, "reference must be a list of 2, one for each model, got 1"),
        ({"reference": IMAGES[0]}, "reference must be a list of 2, one for each model, got Tensor"),
        ({"reference": IMAGES[::-1]}, r"must hold images of \(1, 2, 2\), those of the model, got \(1, 4, 4\)"),
        ({"reference": ["a", "b"]}, "must hold datasets, images or statistics, got str"),
        (
            {"reference": [Statistics(torch.zeros(4), torch.eye(4), {"features": "others"})] * 2},
            "reference must be of features pixels, got others",
        ),
    ],
)
def test_messages(tmp_path, change, message):
    given = {"number": 1, "low": PAIR[0], "high": PAIR[1], **QUICK} | change
    with pytest.raises((TypeError, ValueError), match=message):
        experiments.table(given.pop("number"), given.pop("low"), given.pop("high"), out=tmp_path / "t", **given)
    assert not (tmp_path / "t").exists()


def test_outline_says_what_would_run():
    text = experiments.outline(1, *PAIR, samples=50, **SETTINGS)
    assert "50 samples of 6 schemes" in text and "LRS-2-up-HRS-9  4 evaluations at 2x2, 18 evaluations at 4x4" in text
    assert "with their beginnings shared 20 at 2x2, 62 at 4x4" in text and "separately 84 at 2x2, 62 at 4x4" in text
    assert "in batches of 20" in text
