"""Reading released checkpoints, in every layout in which they are found, and naming what does not fit."""

import random
from pathlib import Path

import pytest
import torch
from golden import fill

from langevin_ext import models

OPTIMISER = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}


def network(name="NCSN", channels=1, levels=10):
    sigmas = torch.logspace(0.5, -2, levels).tolist()
    return fill(models.CLASSES[name]((channels, 32, 32), 2, sigmas)).eval()


def prefixed(state):
    return {f"module.{key}": value for key, value in state.items()}


def write(path, content):
    torch.save(content, path)
    return path


LAYOUTS = {
    "plain": lambda state: state,
    "data_parallel": prefixed,
    "list": lambda state: [prefixed(state), OPTIMISER],
    "tuple": lambda state: (state, OPTIMISER),
    "list_with_steps": lambda state: [prefixed(state), OPTIMISER, 12, 5000],
    "list_with_averages": lambda state: [
        {key: value if key == "module.sigmas" else value + 9 for key, value in prefixed(state).items()},
        OPTIMISER,
        12,
        5000,
        {key: value for key, value in state.items() if key != "sigmas"},
    ],
}


@pytest.mark.parametrize("name", ["NCSN", "NCSNv2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(tmp_path, name, layout):
    model = network(name, channels=3)
    loaded = models.import_ncsn(write(tmp_path / "checkpoint.pth", LAYOUTS[layout](model.state_dict())))
    assert type(loaded) is type(model) and loaded.shape == (3, 32, 32) and loaded.ngf == 2 and not loaded.training
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_the_old_file_format_is_read(tmp_path):
    model = network()
    path = tmp_path / "old.pth"
    torch.save([prefixed(model.state_dict()), OPTIMISER], path, _use_new_zipfile_serialization=False)
    assert torch.equal(models.import_ncsn(path).end_conv.weight, model.end_conv.weight)


def test_averaged_weights_only_on_demand(tmp_path):
    model = network()
    averages = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    path = write(tmp_path / "c.pth", [model.state_dict(), OPTIMISER, 1, 2, averages])
    assert not models.import_ncsn(path).begin_conv.weight.any()
    assert torch.equal(models.import_ncsn(path, ema=False).begin_conv.weight, model.begin_conv.weight)


def test_shape_and_levels(tmp_path):
    path = write(tmp_path / "c.pth", network(levels=6).state_dict())
    loaded = models.import_ncsn(path, (1, 28, 28))
    assert loaded.shape == (1, 28, 28)
    torch.testing.assert_close(loaded.sigmas, torch.logspace(0, -2, 6))
    sigmas = [2.0, 1.0, 0.5, 0.2, 0.1, 0.05]
    torch.testing.assert_close(models.import_ncsn(path, sigmas=sigmas).sigmas, torch.tensor(sigmas))
    with pytest.raises(ValueError, match="sigmas must have the checkpoint's 6 levels, got 2"):
        models.import_ncsn(path, sigmas=[1.0, 0.1])
    with pytest.raises(ValueError, match="shape must have the checkpoint's 1 channels, got \\(3, 32, 32\\)"):
        models.import_ncsn(path, (3, 32, 32))


def test_v2_takes_its_levels_from_the_file_or_the_argument(tmp_path):
    model = network("NCSNv2", levels=6)
    path = write(tmp_path / "c.pth", model.state_dict())
    assert torch.equal(models.import_ncsn(path).sigmas, model.sigmas)
    assert len(models.import_ncsn(path, sigmas=[1.0, 0.1]).sigmas) == 2


def changed(change):
    state = dict(network().state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    "content, message",
    [
        (changed(lambda s: s.pop("res1.0.conv1.bias")), "1 missing: res1.0.conv1.bias"),
        (
            changed(lambda s: s.update({f"more.{i}": torch.zeros(1) for i in range(4)})),
            "4 unexpected: more.0, more.1, more.2, \\.\\.\\.",
        ),
        (
            changed(lambda s: s.update({"res3.1.conv2.weight": torch.zeros(4, 4, 1, 1)})),
            "1 of another shape: res3.1.conv2.weight \\(4, 4, 1, 1\\), not \\(4, 4, 3, 3\\)",
        ),
        (changed(lambda s: s.update({"res5.0.conv1.weight": torch.zeros(1)})), "looks like NCSNv2Deeper"),
        (changed(lambda s: s.pop("begin_conv.weight")), "has no begin_conv.weight; its tensors are begin_conv.bias"),
        (
            {key: value for key, value in network("NCSNv2").state_dict().items() if key != "sigmas"},
            "looks like the unconditional baseline network",
        ),
        (network(levels=1).state_dict(), "sigmas must have the checkpoint's 1 levels, got none"),
        ([], "must hold a state dict or a list starting with one, got list"),
        ({"epoch": 3}, "must hold a state dict or a list starting with one, got dict"),
        (torch.zeros(3), "must hold a state dict or a list starting with one, got Tensor"),
        ([Path("an object")], "must be a file of torch.save with tensors and plain containers alone"),
    ],
    ids="missing unexpected shape deeper other baseline one_level empty numbers tensor object".split(),
)
def test_what_does_not_fit_is_named(tmp_path, content, message):
    path = write(tmp_path / "c.pth", content)
    with pytest.raises(ValueError, match=message) as caught:
        models.import_ncsn(path)
    assert str(path) in str(caught.value) or "sigmas must" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"(" * 10])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "c.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="import_ncsn: .*c.pth must be a file of torch.save with tensors"):
        models.import_ncsn(path)


@pytest.mark.filterwarnings("ignore")
def test_random_bytes_are_refused(tmp_path):
    draw = random.Random(0)
    for _ in range(300):
        (tmp_path / "c.pth").write_bytes(draw.choice([b"", b"\x80\x02"]) + draw.randbytes(40))
        with pytest.raises(ValueError, match="import_ncsn: .*c.pth must"):
            models.import_ncsn(tmp_path / "c.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        models.import_ncsn(tmp_path / "nowhere.pth")
