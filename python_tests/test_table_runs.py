"""Tables that are run: shared beginnings, bit-equality with `sample`, continuation."""

import numpy as np
import pytest
import torch
from sampling_helpers import Counting
from table_helpers import IMAGES, PAIR, QUICK, SETTINGS, own_sample

from langevin_ext import experiments, metrics, plan
from langevin_ext.experiments import run
from langevin_ext.experiments.shared_runs import SharedRuns
from langevin_ext.experiments.tables import TABLES, paper_table
from langevin_ext.models import NCSN
from langevin_ext.scores import GaussianField


def distinct_levels(number):
    """Levels at each resolution that a table must run, counted by hand: all of LRS, and each high stage on its own."""
    high = {1: 10 + 3 + 9 + 9, 2: 10 + sum(range(2, 9)), 3: 10 + sum(range(3, 10)), 4: 10 + sum(range(3, 10))}
    return {"2x2": 10, "4x4": high[number]}


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """matplotlib takes longer than a table of this size."""
    monkeypatch.setattr(run.figures, "quality", lambda table, path: path.write_bytes(b""))


# --- sharing ---
@pytest.mark.parametrize("number", TABLES)
def test_parts_cover_the_schemes_and_hold_each_level_once(number):
    schemes = paper_table(number).schemes
    shared = SharedRuns(PAIR, schemes, 10, **SETTINGS, denoise=False)
    assert shared.distinct == {size: 2 * levels for size, levels in distinct_levels(number).items()}
    separate = [plan(PAIR, scheme, 10, **SETTINGS, denoise=False).evaluations for scheme in schemes]
    assert shared.separate == {size: sum(counts[size] for counts in separate) for size in ("2x2", "4x4")}
    for index, scheme in enumerate(schemes):
        path = shared.path(index)
        assert [part.parent for part in path] == [None, *(part.index for part in path[:-1])]
        assert [index in part.ends for part in path] == [False] * (len(path) - 1) + [True]
        stages = [stage for part in path for stage in part.stages]
        planned = plan(PAIR, scheme, 10, **SETTINGS, denoise=False).stages
        for kind in (stages, planned):
            kind[:] = [(stage.model, row) for stage in kind for row in stage.rows or ["up"]]
        assert stages == planned
    assert len({part.name for part in shared.parts}) == len(shared.parts)


def test_names_of_parts():
    names = [part.name for part in SharedRuns(PAIR, paper_table(1).schemes, 10, **SETTINGS, denoise=True).parts]
    assert names == [
        "2x2[1:2]",
        "2x2[1:10]",
        "2x2[1:10]-denoised",
        "2x2[1:10]-denoised-up",
        "2x2[1:10]-up",
        "2x2[1:10]-up-4x4[8:10]-denoised",
        "2x2[1:10]-up-4x4[2:10]-denoised",
        "2x2[1:2]-up-4x4[2:10]-denoised",
        "4x4[1:10]-denoised",
    ]


@pytest.mark.parametrize("denoise", [False, True])
def test_samples_are_those_of_sample_bit_for_bit(tmp_path, denoise):
    for number in (1, 3):
        experiments.table(number, *PAIR, out=tmp_path / str(number), denoise=denoise, **QUICK)
        for scheme in paper_table(number).schemes:
            with np.load(tmp_path / str(number) / "samples" / f"{scheme}.npz") as file:
                assert np.array_equal(file["images"], own_sample(scheme, denoise=denoise).numpy())
                assert file["seed"] == 5 and file["first"] == 0


def test_samples_of_networks_and_any_upsampling(tmp_path):
    torch.manual_seed(0)
    models = [NCSN((1, 8, 8), ngf=4), NCSN((1, 16, 16), ngf=4)]
    double = torch.nn.Upsample(scale_factor=2, mode="nearest")
    few = QUICK | {"samples": 3, "n": 3, "batch_size": 2, "n_steps_each": [1, 2], "eps": [1e-5, 2e-5]}
    reference = [torch.rand(9, *model.shape) for model in models]
    with pytest.warns(metrics.FewSamplesWarning):
        made = experiments.table(1, *models, out=tmp_path / "t", upsample=double, reference=reference, **few)
    assert "Upsampling: Upsample; the paper's table has FSRCNN." in made.notes
    same = {"batch_size": 2, "n_steps_each": [1, 2], "eps": [1e-5, 2e-5], "upsample": "nearest"}
    for scheme in ("LRS-up", "LRS-2-up-HRS-9"):
        with np.load(tmp_path / "t" / "samples" / f"{scheme}.npz") as file:
            assert np.array_equal(file["images"], own_sample(scheme, 3, models, **same).numpy())


def test_each_distinct_level_is_run_once_for_each_batch():
    counting = [Counting(model) for model in PAIR]
    made = experiments.table(1, *counting, reference=IMAGES, **QUICK)
    levels = distinct_levels(1)
    assert [model.calls for model in counting] == [3 * 2 * levels["2x2"], 3 * 2 * levels["4x4"]]
    assert made.sharing["evaluations"] == {"2x2": 20, "4x4": 62}
    assert made.sharing["evaluations_separately"] == {"2x2": 84, "4x4": 62}
    assert 0 < made.sharing["seconds"] < made.sharing["seconds_separately"]
    assert [row.evaluations["2x2"] for row in made.rows] == [20, 0, 20, 20, 20, 4]
    assert [row.evaluations["4x4"] for row in made.rows] == [0, 20, 0, 6, 18, 18]
    note = "20 at 2x2, 62 at 4x4 evaluations per sample instead of 84 at 2x2, 62 at 4x4"
    assert note in made.notes[-1]


# --- continuation ---
class Stop(Exception):
    pass


class Stopping(Counting):
    """Fails at a call, if at all; not a public attribute, so that a fingerprint does not see when."""

    def __init__(self, model, at=None):
        super().__init__(model)
        self._at = at

    def __call__(self, x, level):
        if self._calls == self._at:
            raise Stop
        return super().__call__(x, level)


def pair(at=None):
    return [Stopping(PAIR[0]), Stopping(PAIR[1], at)]


@pytest.mark.parametrize("at", [2, 123])  # 2: the first level of LRS-up-HRS-3 at the high resolution has ended
def test_a_stopped_table_continues(tmp_path, monkeypatch, at):
    monkeypatch.setattr("langevin_ext.samplers.record.SAVING_SHARE", 1e9)  # a checkpoint after every update
    arguments = {"reference": IMAGES, **QUICK, "samples": 30}
    models, first, second = pair(), pair(at), pair()
    whole = experiments.table(1, *models, out=tmp_path / "whole", **arguments)
    with pytest.raises(Stop):
        experiments.table(1, *first, out=tmp_path / "t", **arguments)
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"parts", "status.json"}
    again = experiments.table(1, *second, out=tmp_path / "t", **arguments)
    for one, two, both in zip(first, second, models, strict=True):
        assert one.calls + two.calls == both.calls  # no update is made twice
    for row in whole.rows:
        images = [np.load(tmp_path / name / "samples" / f"{row.scheme}.npz")["images"] for name in ("whole", "t")]
        assert np.array_equal(*images)
    for name in ("distance", "deviation", "evaluations"):
        assert [getattr(row, name) for row in whole.rows] == [getattr(row, name) for row in again.rows]
    trajectories = [(tmp_path / name / "trajectory-LRS-up-HRS-3.png").read_bytes() for name in ("whole", "t")]
    assert trajectories[0] == trajectories[1]
    assert {path.name for path in (tmp_path / "t").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_a_table_stopped_after_its_runs_measures_no_distance_twice(tmp_path, monkeypatch):
    def fail(*_):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(run, "_write", fail)
        experiments.table(1, *pair(), out=tmp_path / "t", reference=IMAGES, **QUICK)
    monkeypatch.setattr("langevin_ext.experiments.distances.bootstrap", fail)
    models = pair()
    experiments.table(1, *models, out=tmp_path / "t", reference=IMAGES, **QUICK)
    assert [model.calls for model in models] == [0, 0]


def test_other_settings_and_finished_folders_are_refused(tmp_path):
    with pytest.raises(Stop):
        experiments.table(1, *pair(100), out=tmp_path / "t", reference=IMAGES, **QUICK)
    changes = [
        ({"seed": 6}, "another seed: 5 there, 6 now"),
        ({"samples": 51}, "another n: 50 there, 51 now"),
        ({"eps": 1e-5}, "another eps"),
        ({"n_steps_each": 3}, "another n_steps_each"),
        ({"denoise": True}, "another denoise"),
        ({"upsample": "nearest"}, "another upsample"),
    ]
    for change, message in changes:
        with pytest.raises(ValueError, match=message):
            experiments.table(1, *pair(), out=tmp_path / "t", reference=IMAGES, **(QUICK | change))
    with pytest.raises(ValueError, match="another scheme"):
        experiments.table(2, *pair(), out=tmp_path / "t", reference=IMAGES, **QUICK)
    with pytest.raises(ValueError, match="another model"):
        other = GaussianField((1, 4, 4), correlation=0.5)
        experiments.table(1, other.pooled(2), other, out=tmp_path / "t", reference=IMAGES, **QUICK)
    experiments.table(1, *pair(), out=tmp_path / "t", reference=IMAGES, **QUICK)
    with pytest.raises(ValueError, match="out must be a new or empty folder.* which holds a finished one"):
        experiments.table(1, *pair(), out=tmp_path / "t", reference=IMAGES, **QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="out must be a new or empty folder.* which holds other files"):
        experiments.table(1, *pair(), out=tmp_path / "mine", reference=IMAGES, **QUICK)
