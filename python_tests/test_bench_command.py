"""`langevin-ext bench`: what it counts, predicts, prints and writes. No time is asserted."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from langevin_ext import sampling
from langevin_ext.benchmarking import kernels, network, tables
from langevin_ext.commands import bench as module
from langevin_ext.commands.bench import bench
from langevin_ext.models import MLP, NCSN, CLDNet, NCSNv2
from langevin_ext.scores import Gaussian

QUICK = ["--seconds", "2", "--device", "cpu", "--batch-size", "3", "-n", "7"]
SMALL = ["--ngf", "4", "--shape", "3x8x8"]


def models(count=1):
    return [NCSN((3, 8 << k, 8 << k), 4).eval() for k in range(count)]


# --- what is counted ---
def test_work_of_the_released_network():
    # ngf 128 at 32 pixels, counted by hand: 71 norms, 75 convolutions, 39 sums.
    found = network.work(NCSN((3, 32, 32), 128).to("meta").eval(), "meta")
    pixels, wide = 32 * 32, 16 * 16
    norms = 20 * 128 * pixels + 42 * 256 * wide + 9 * 128 * wide
    convolutions = (
        32 * 256 * 256 * 9 * wide  # at the low resolution, and with dilation
        + 10 * 256 * 256 * 9 * wide
        + 18 * 128 * 128 * 9 * pixels
        + 9 * 128 * 128 * 9 * wide
        + 2 * 256 * 128 * 9 * wide
        + 128 * 256 * 16 * wide  # 4x4 with stride 2
        + 128 * 256 * wide  # 1x1 after the mean
        + 2 * 3 * 128 * 9 * pixels  # first and last
    )
    sums = 10 * 128 * pixels + 23 * 256 * wide + 6 * 128 * wide  # of 8 blocks, 20 units, 8 poolings and 3 fusions
    assert found == network.Work(2 * convolutions, norms, sums)


@pytest.mark.parametrize("model", [NCSNv2((1, 8, 8), 4), MLP((2, 1, 1), (16,)), CLDNet((2, 1, 1), hidden=(16,))])
def test_work_of_other_networks(model):
    found = network.work(model.eval())
    linear = 2 * sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    assert found.flop >= linear and found.flop > 0
    assert (found.normed > 0) == (found.summed > 0) == isinstance(model, NCSNv2)


def test_work_leaves_the_network_as_it_was():
    model = models()[0]
    network.work(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_floor():
    found = network.Work(flop=600, normed=30, summed=20)
    # 5 images: 3,000 operations at 1,000 a second; 2 x 50 values of 2 bytes read and written at 500 bytes a second
    assert found.floor(5, 2, 1000.0, 500.0) == pytest.approx(3.0 + 2.0)


def test_a_score_without_a_network_has_no_work():
    assert network.work(Gaussian(variance=1.0, shape=(1, 2, 2)))[1:] == (0, 0)


# --- the kernels ---
CASES = kernels.cases(2, 8, 4)


@pytest.mark.parametrize("name", CASES)
def test_cases_agree_and_move_what_they_say(name):
    case = CASES[name](seed=3)
    case.check()
    images, features = 2 * 3 * 8 * 8, 2 * 4 * 4 * 4
    values = {"langevin_step": 3, "cld_step": 5, "perturb": 2, "dsm_loss+gradient": 2}
    low = images // 4  # an upsampling reads one value for each four that it writes
    expected = values[name] * images if name in values else 5 * low if "upsample" in name else 2 * features
    assert case.moved == 4 * expected
    assert set(case.calls) == {"torch", "fused"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_norms_in_every_form_agree(dtype):
    with torch.no_grad():
        for residual in (False, True):
            case = kernels.norm((2, 8, 6, 6), "cpu", 1, dtype, channels_last=True, residual=residual)
            case.check()
            function, arguments = case.plain
            pairs = [function(*arguments), case.same[0]()]
            one, two = (pair if torch.is_tensor(pair) else pair[0] for pair in pairs)
            torch.testing.assert_close(one, two, rtol=case.tolerance, atol=case.tolerance, check_dtype=False)
        kernels.norm_backward((2, 8, 6, 6), "cpu", 1, dtype, channels_last=True).check()


def test_a_case_that_differs_is_refused():
    case = kernels.perturb((2, 3, 4, 4), "cpu")
    with pytest.raises(AssertionError):
        case._replace(same=[case.same[0], lambda: case.same[1]() + 0.01]).check()


# --- the predictions ---
def test_schemes_that_fit():
    one, two, three = models(1), models(2), models(3)
    assert {"langevin", "annealed", "consistent"} <= set(tables.scheme_names(one))
    assert "HRS" not in tables.scheme_names(one)  # another name of annealed
    assert set(tables.PAPER) <= set(tables.scheme_names(two))
    assert tables.scheme_names(three)[-1] == "R2[1:10]-up-R1[1:10]-up-R0[1:10]"
    few = [NCSN((3, 8 << k, 8 << k), 4, sigmas=[1.0, 0.5]) for k in (0, 1)]
    assert "LRS-up-HRS-3" not in tables.scheme_names(few) and "LRS-up" in tables.scheme_names(few)
    assert {"cld-em", "cld-sscs", "cld-ode"} == set(tables.scheme_names([CLDNet((2, 1, 1), hidden=(16,))]))


def test_predictions_are_evaluations_times_what_one_takes():
    pair = models(2)
    units = {"8x8": 2.0, "16x16": 5.0, "upsample 16x16": 7.0}
    rows = {row["scheme"]: row for row in tables.scheme_rows(pair, tables.scheme_names(pair), 12, 4, units)}
    for name, row in rows.items():
        if "why_not" in row:
            continue
        options = tables.options_of(name, pair[-1])
        assert row["evaluations"] == sampling.plan(pair, name, 12, batch_size=4, **options).evaluations
        each = sum(units[size] * count for size, count in row["evaluations"].items()) + 7.0 * ("up" in name)
        assert row["predicted_s"] == pytest.approx(3 * each)  # three batches
        assert row["images_per_s"] == pytest.approx(12 / row["predicted_s"])
    assert rows["LRS-2-up-HRS-9"]["predicted_s"] == 3 * (200 * 2.0 + 7.0 + 901 * 5.0)
    # a network with a few levels cannot do what needs the score between them
    assert rows["jms"]["why_not"].startswith("the noise levels of the scheme must be levels of the model")


def test_units_are_measured_by_plan():
    assert set(tables.unit_seconds(models(2), 2)) == {"8x8", "16x16", "upsample 16x16"}
    assert set(tables.unit_seconds([CLDNet((2, 1, 1), hidden=(16,))], 2)) == {"1x1"}


@pytest.mark.parametrize(
    "model", [NCSN((3, 8, 8), 4).eval(), CLDNet((2, 1, 1), hidden=(16,)).eval()], ids=["ncsn", "cld"]
)
def test_a_run_against_its_prediction(model):
    size = "x".join(map(str, model.shape[1:]))
    row = tables.run_row([model], 2, {size: 0.05}, seconds=1.2)  # 10 levels, two steps of 0.05 s
    count = sum(row["evaluations"].values())
    assert count == (20 if row["scheme"] == "cld-em" else 21)
    assert row["predicted_s"] == pytest.approx(0.05 * count) and row["seconds"] > 0


# --- the command ---
@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    done = CliRunner().invoke(bench, [*SMALL, *QUICK, "--out", str(out)], catch_exceptions=False)
    return done.output, json.loads(out.read_text()), out


def test_command_prints_every_row(result):
    output, found, out = result
    for row in found["kernels"]["rows"]:
        assert row["op"] in output
    name = found["models"][0]
    rows = [(row["model"], row["batch"]) for row in found["forward"]]
    assert rows == [(each, batch) for batch in (1, 4, 16) for each in (name, f"{name}, engine")]
    assert found["models"] == ["NCSN 3x8x8 ngf 4"] and found["models"][0] in output
    assert {row["scheme"] for row in found["schemes"]["rows"]} == set(tables.scheme_names(models()))
    assert (found["schemes"]["n"], found["schemes"]["batch"]) == (7, 3)
    assert all(row["scheme"] in output for row in found["schemes"]["rows"])
    assert {"device", "threads", "torch", "commit", "date", "version", "backend"} <= set(found)
    assert f"written to {out}" in output and "predicted for 7 samples, 3 at a time" in output


def test_own_models_and_chosen_schemes():
    arguments = ["--model", "glyphs16", "--model", "glyphs32", "--scheme", "LRS-2-up-HRS-9", "--scheme", "LRS"]
    done = CliRunner().invoke(bench, [*arguments, *QUICK[:-2], "-n", "1"], catch_exceptions=False)
    assert "LRS-2-up-HRS-9" in done.output and "annealed (" in done.output
    assert (
        done.output.count("glyphs16") == done.output.count("glyphs32") == 6
    )  # rows for each batch size: module and engine


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "digits", "--ngf", "8"], "--ngf is for the untrained network, without --model"),
        (
            ["--model", "glyphs-fsrcnn"],
            "--model must be a score network, got glyphs-fsrcnn, which holds FSRCNN",
        ),
        (["--seconds", "0"], "--seconds must be positive, got 0"),
        (["--shape", "8"], "--shape must be like 3x32x32, got '8'"),
        (["--out", "nowhere/bench.json"], "--out must be in an existing folder, got nowhere/bench.json"),
    ],
)
def test_command_refuses(arguments, message):
    done = CliRunner().invoke(bench, arguments)
    assert str(done.exception) == message


def test_command_refuses_models_that_are_no_ladder():
    done = CliRunner().invoke(bench, ["--model", "glyphs32", "--model", "glyphs16"])
    assert isinstance(done.exception, ValueError) and "twice" in str(done.exception)


def test_nothing_is_overwritten(result, monkeypatch):
    monkeypatch.setattr(module, "measured", lambda *_: pytest.fail("it measured before it looked"))
    done = CliRunner().invoke(bench, [*SMALL, *QUICK, "--out", str(result[2])])
    assert str(done.exception) == f"--out must be a new file, got {result[2]}, which exists"
