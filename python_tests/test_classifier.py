"""The classifier: what it computes, how it is trained, and that the shipped ones see what they should."""

import json

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

import langevin_ext
from langevin_ext import noise
from langevin_ext.commands.train_classifier import train_classifier as command
from langevin_ext.data import ImageDataset
from langevin_ext.models import Classifier, build
from langevin_ext.models.classifier import resize
from langevin_ext.training import describe, load, train_classifier
from langevin_ext.training.classifier import _coarsen, _schedule

# three classes of 8x8 images that differ in where they are bright
LABELS = torch.arange(60) % 3
IMAGES = (noise.uniform((60, 1, 8, 8), 1) * 100).to(torch.uint8)
for i in range(60):
    IMAGES[i, :, 2 * int(LABELS[i]) : 2 * int(LABELS[i]) + 3] += 150
TRAIN, TEST = ImageDataset(IMAGES[:48], LABELS[:48], name="bars"), ImageDataset(IMAGES[48:], LABELS[48:])
QUICK = {"epochs": 4, "batch_size": 16, "width": 4, "dimension": 8, "progress": False}


def by_hand(model, x):
    """The features from their definition, with the running statistics of the norms."""
    for i in range(4):
        x = functional.conv2d(functional.pad(x, (1, 1, 1, 1)), model.convolutions[i].weight)
        norm = model.norms[i]
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        x = (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        x = x.clamp(min=0)
        if i < 3:
            height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
            x = x[:, :, :height, :width].unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    return x.flatten(2).mean(2)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 10), (1, 32, 24)])
def test_features_and_logits_are_the_definition(shape):
    torch.manual_seed(0)
    model = Classifier(shape, classes=5, width=3, dimension=6)
    for norm in model.norms:  # statistics that show where they enter
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2.0)
        torch.nn.init.uniform_(norm.bias, -0.1, 0.3)
    model.eval().double()
    x = torch.rand(4, *shape, dtype=torch.float64)
    features = model.features(x)
    assert features.shape == (4, 6) and (features > 0).any()
    torch.testing.assert_close(features, by_hand(model, x))
    torch.testing.assert_close(model(x), features @ model.linear.weight.T + model.linear.bias)


def test_config_rebuilds_it():
    model = Classifier((3, 16, 12), 7, 5, 9)
    again = build(json.loads(json.dumps(model.config())))
    assert again.config() == model.config() and again.load_state_dict(model.state_dict())


def test_other_sizes_are_brought_to_its_own():
    model = Classifier((1, 16, 16), 3, 4, 8).eval()
    small = torch.rand(2, 1, 8, 8)
    enlarged = functional.interpolate(small, (16, 16), mode="bicubic", align_corners=False).clamp(0, 1)
    assert torch.equal(model(small), model(enlarged)) and torch.equal(resize(small, (8, 8)), small)
    # shrinking averages first: lines on every fourth column become grey, of which single points would see 0.6
    lines = (torch.arange(32) % 4 == 1).float().expand(1, 1, 32, 32)
    assert (resize(lines, (8, 8)) - 0.25).abs().max() < 0.05
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float()[None, None]
    assert torch.equal(_coarsen(board, 1), torch.full_like(board, 0.5)) and _coarsen(board, 0) is board


def test_schedule():
    rates = [_schedule(step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9] == 1.0 and rates[55] == pytest.approx(0.5)
    assert rates[9:] == sorted(rates[9:], reverse=True) and 0 < rates[-1] < 1e-3 and _schedule(0, 1) == 1.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "bars.safetensors"
    model = train_classifier(TRAIN, out=path, test=TEST, coarse=0.5, **{**QUICK, "epochs": 30})
    return path, model


def test_learns_and_says_how_well(trained):
    path, model = trained
    facts = describe(path)
    accuracy = facts["metadata"]["accuracy"]
    right = (model(TEST.images.float() / 255).argmax(1) == TEST.labels).double().mean().item()
    assert accuracy["test"] == right == 1.0 and accuracy["train"] == 1.0
    assert accuracy["test at half resolution"] > 0.9
    assert facts["dtype"] == "float16, float32, int64" and facts["metadata"]["settings"]["coarse"] == 0.5
    again = load(path)  # float16 in the file, and so are the weights that were measured
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert not model.training and not any(p.half().float().ne(p).any() for p in model.parameters())


def test_accuracies_are_shares_of_right_answers(tmp_path):
    """Of a network that has too little to go by: few, noisy images."""
    pixels = (IMAGES.float() * 0.4 + 153 * noise.uniform((60, 1, 8, 8), 9)).to(torch.uint8)
    data, held_out = ImageDataset(pixels[:30], LABELS[:30]), ImageDataset(pixels[30:], LABELS[30:])
    model = train_classifier(
        data, out=tmp_path / "poor", test=held_out, coarse=0.5, **{**QUICK, "lr": 0.02, "epochs": 8}
    )
    accuracy = describe(tmp_path / "poor")["metadata"]["accuracy"]
    train, test = data.images.float() / 255, held_out.images.float() / 255
    low = functional.interpolate(functional.avg_pool2d(test, 2), (8, 8), mode="bicubic", align_corners=False).clamp(
        0, 1
    )
    expected = {
        name: sum(guess == label for guess, label in zip(model(x).argmax(1).tolist(), labels.tolist(), strict=True))
        / len(x)
        for name, x, labels in (
            ("train", train, data.labels),
            ("test", test, held_out.labels),
            ("test at half resolution", low, held_out.labels),
        )
    }
    assert accuracy == expected and len(set(expected.values())) == 3, "three numbers, so that none stands for another"


def test_same_call_same_weights(tmp_path):
    def weights(name, **options):
        torch.manual_seed(ord(name))  # the global generator plays no part
        return train_classifier(TRAIN, out=tmp_path / name, test=TEST, **{**QUICK, **options}).state_dict()

    first, again, other = weights("a"), weights("b"), weights("c", seed=1)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["linear.weight"], other["linear.weight"])
    before = torch.random.get_rng_state()
    train_classifier(TRAIN, out=tmp_path / "d", test=TEST, **QUICK)
    assert torch.equal(before, torch.random.get_rng_state())


def test_two_steps_by_hand(tmp_path):
    """Order, dequantisation, coarse half, loss, schedule and AdamW from their definitions."""
    model = train_classifier(
        TRAIN, out=tmp_path / "a", test=TEST, coarse=0.5, **{**QUICK, "epochs": 1, "batch_size": 24}
    )
    torch.manual_seed(0)
    expected = Classifier((1, 8, 8), 3, 4, 8)
    optimizer = torch.optim.AdamW(expected.parameters(), 2e-3, weight_decay=1e-2)
    for step in range(2):  # of 2, of which the first is the warm-up: both have the full learning rate
        indices = langevin_ext.data.indices_for(step, 24, 48, 0)
        u = noise.uniform((24, 1, 8, 8), 0, step=step, stream=noise.DEQUANTISE)
        x = (IMAGES[:48][indices] + u) / 256
        low = x[:12].unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
        x[:12] = functional.interpolate(low, (8, 8), mode="bicubic", align_corners=False).clamp(0, 1)
        target = 0.95 * functional.one_hot(LABELS[indices], 3) + 0.05 / 3
        loss = -(target * expected(x).log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        # where all pooled values are positive the next norm takes this bias out again: the sign of its gradient, which
        # is all that Adam's first steps look at, is that of rounding
        if name != "norms.2.bias":
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-4)  # float16 keeps 11 bits


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"epochs": 0}, ValueError, r"train_classifier: epochs must be an integer in \[1, 2\^32\), got 0"),
        ({"batch_size": 1}, ValueError, r"train_classifier: batch_size must be an integer in \[2, 2\^32\), got 1"),
        ({"seed": -1}, ValueError, r"train_classifier: seed must be an integer in \[0, 2\^64\), got -1"),
        ({"lr": 0.0}, ValueError, r"train_classifier: lr must be in \(0, inf\), got 0.0"),
        ({"weight_decay": -1.0}, ValueError, r"train_classifier: weight_decay must be in \[0, inf\), got -1.0"),
        ({"smoothing": 1.0}, ValueError, r"train_classifier: smoothing must be in \[0, 1\), got 1.0"),
        ({"coarse": 1.5}, ValueError, r"train_classifier: coarse must be in \[0, 1\], got 1.5"),
        ({"width": 0}, ValueError, "Classifier: width must be an integer of at least 1, got 0"),
        ({"dimension": 2.5}, ValueError, "Classifier: dimension must be an integer of at least 1, got 2.5"),
        (
            {"data": ImageDataset(IMAGES)},
            ValueError,
            "train_classifier: data must be an ImageDataset with labels, got Im",
        ),
        ({"test": ImageDataset(IMAGES)}, ValueError, "train_classifier: test must be an ImageDataset with labels"),
        ({"test": None}, ValueError, "split: bars must come from open_dataset"),
        (
            {"test": ImageDataset(IMAGES, LABELS + 1)},
            ValueError,
            r"train_classifier: test must be images \(1, 8, 8\) of 3 classes, got \(1, 8, 8\) with labels up to 3",
        ),
        ({"out": "exists"}, FileExistsError, "train_classifier: out must be a new file, got .*exists, which exists"),
        ({"lr": 1e30}, FloatingPointError, r"train_classifier: loss is not finite at step \d; try a smaller lr"),
    ],
)
def test_wrong_arguments(tmp_path, options, error, message):
    (tmp_path / "exists").write_text("precious")
    arguments = {"data": TRAIN, "test": TEST, **QUICK, **options}
    out = tmp_path / arguments.pop("out", "new")
    with pytest.raises(error, match=message):
        train_classifier(arguments.pop("data"), out=out, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["exists"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((2, 8, 8),), r"Classifier: shape must have 1 or 3 channels, got \(2, 8, 8\)"),
        (((1, 8, 7),), r"Classifier: shape must be \(C, H, W\) with H and W at least 8, got \(1, 8, 7\)"),
        (((1, 8, 8), 1), "Classifier: classes must be an integer of at least 2, got 1"),
        (((1, 8, 8), True), "Classifier: classes must be an integer of at least 2, got True"),
    ],
)
def test_wrong_classifiers(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classifier(*arguments)


def test_wrong_input():
    with pytest.raises(ValueError, match=r"Classifier: x must be \(B, 1, h, w\), got \(2, 3, 8, 8\)"):
        Classifier((1, 8, 8), 3)(torch.zeros(2, 3, 8, 8))


def test_command(tmp_path):
    out = tmp_path / "small.safetensors"
    arguments = ["digits", "--out", str(out), "--epochs", "1", "--width", "4", "--dimension", "8", "--device", "cpu"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    metadata = describe(out)["metadata"]
    assert metadata["command"] == (
        "langevin-ext train-classifier digits --epochs 1 --batch-size 128 --lr 0.002 --coarse 0.0 --seed 0 --width 4"
        " --dimension 8 --out small.safetensors"
    )
    assert metadata["train_images"] == 1500 and metadata["test_images"] == 297
    assert f"{metadata['accuracy']['test']:.1%} (test)" in result.output and "kB" in result.output
