"""Inception features and the distances in them, with random weights in the place of the real ones.

What random weights cannot show, that the features mean anything, is not ours; that images reach pytorch-fid's network
as its own command would bring them there is what matters, and is tested against that command's functions.
"""

import copy
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from fid_weights import random_state
from PIL import Image

from langevin_ext import noise
from langevin_ext.metrics import FewSamplesWarning, InceptionFeatures, fid, inception_score, load_statistics
from langevin_ext.metrics import inception as module

RGB = noise.uniform((4, 3, 12, 20), 1) * 1.2 - 0.1  # some values outside [0, 1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(random_state(), path)
    return path


@pytest.fixture(scope="module")
def features(weights):
    return InceptionFeatures(weights, "cpu", batch_size=3)


@pytest.fixture(scope="module")
def rows(features):
    return features(RGB)


@pytest.fixture(scope="module")
def theirs(features, tmp_path_factory):
    """Statistics that pytorch-fid's `--save-stats` makes of PNG files, with our weights in the place of its own."""
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "pictures").mkdir()
    v = np.clip(RGB.numpy() * 255 + 0.5, 0, 255).astype(np.uint8)  # in float32, as torchvision writes them
    for i, picture in enumerate(v):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / "pictures" / f"{i}.png")

    class Network:
        BLOCK_INDEX_BY_DIM = {2048: 3}

        def __new__(cls, _):
            return features._network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid_score, "InceptionV3", Network)
        fid_score.save_fid_stats([str(folder / "pictures"), str(folder / "stats.npz")], 3, "cpu", 2048, 0)
    return folder / "stats.npz"


def relative(found, expected):
    """Largest difference in units of the spread between images."""
    return ((found - expected).abs().max() / expected.std(0).mean()).item()


def test_shapes_names_and_hash(features, weights, rows):
    assert rows.shape == (4, 2048) and rows.dtype == torch.float32 and bool(rows.isfinite().all())
    assert rows.std(0).mean() > 1e-3 * rows.mean()  # the random weights tell images apart
    assert features.name == "Inception pool3" and features.path == weights
    assert features.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert features(RGB[:0]).shape == (0, 2048)


def test_batches_and_calls_change_nothing(features, rows):
    assert torch.equal(features(RGB), rows)
    other = copy.copy(features)
    other.batch_size = 1
    # convolutions may sum in another order for another batch size: float32 rounding through 94 layers
    order = torch.tensor([3, 0, 1, 2])
    assert relative(other(RGB[order]), rows[order]) < 1e-3


def test_images_are_seen_as_pytorch_fid_sees_png_files(rows, theirs):
    found = load_statistics(theirs)
    # the same float32 features; only the order of the float64 sums differs
    torch.testing.assert_close(found.mean, rows.double().mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.covariance, torch.cov(rows.double().T), rtol=1e-9, atol=1e-14)
    assert found.provenance == {}


def test_eight_bit_images_are_taken_as_they_are(features, rows):
    v = module.eight_bit(RGB[:3])
    assert v.dtype == torch.uint8 and torch.equal(module.eight_bit(v), v)
    assert torch.equal(features(v), rows[:3])


def test_rounding_is_to_the_nearest():
    x = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.4 / 255, 254.6 / 255, 1.0, 7.0])
    assert module.eight_bit(x[:, None, None, None]).flatten().tolist() == [0, 0, 0, 1, 254, 255, 255, 255]


def test_grey_images_are_repeated(features):
    grey = RGB[:1, :1]
    assert torch.equal(features(grey), features(grey.repeat(1, 3, 1, 1)))


def test_the_network_is_in_eval_mode(features):
    assert not any(part.training for part in features._network.modules())
    assert not any(parameter.requires_grad for parameter in features._network.parameters())


def test_probabilities(features, rows):
    p = features.probabilities(rows)
    logits = rows.double() @ features._classes.T
    assert p.shape == (4, 1008)
    torch.testing.assert_close(p, logits.exp() / logits.exp().sum(1, keepdim=True), rtol=1e-12, atol=0)
    assert 1 <= inception_score(p, 1).mean < 1008


@pytest.mark.filterwarnings("ignore::langevin_ext.metrics.FewSamplesWarning")
def test_fid_of_images_and_of_statistics_from_pytorch_fid(features, weights, theirs):
    other = RGB.flip(2)[:3]
    expected = fid(RGB, other, features)
    assert expected > 0 and expected.counts == (4, 3)
    assert str(expected) == f"{float(expected):.6g} (Inception pool3, 4 against 3 samples)"
    assert fid(other, RGB, weights=weights, device="cpu", batch_size=3) == pytest.approx(expected, rel=1e-9)
    found = fid(theirs, other, features)
    # equal features, but here the root of a singular covariance: eigenvalues of 0 come out as 1e-16 of the largest,
    # their roots as 1e-8, and there are 2044 of them
    assert found == pytest.approx(expected, rel=1e-5) and found.counts == (None, 3)


def test_statistics_alone_need_no_network(tmp_path):
    mean = torch.zeros(2).numpy()
    np.savez(tmp_path / "a.npz", mu=mean, sigma=np.eye(2))
    np.savez(tmp_path / "b.npz", mu=mean + 1, sigma=np.eye(2))
    assert fid(tmp_path / "a.npz", tmp_path / "b.npz", weights="none.pth") == pytest.approx(2, abs=1e-12)


def test_few_samples_are_said(features):
    with pytest.warns(FewSamplesWarning, match="^fid: 2 samples are fewer than the 2048 features") as caught:
        fid(RGB[:2], RGB[1:3], features)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(2, 2, 8, 8), r"images must be \(n, 1 or 3, H, W\), got \(2, 2, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"images must be \(n, 1 or 3, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(2, 1, 0, 8), r"images must be \(n, 1 or 3, H, W\)"),
        (torch.full((2, 1, 4, 4), torch.nan), r"images must be finite, got 2 that are not: \[0, 1\]"),
    ],
)
def test_wrong_images(features, images, message):
    with pytest.raises(ValueError, match=message):
        features(images)


def test_missing_weights_name_file_place_and_source(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_fid")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket", None)  # nothing may be fetched
    with pytest.raises(FileNotFoundError) as error:
        InceptionFeatures()
    message = str(error.value)
    assert "pt_inception-2015-12-05-6726825d.pth must be given as weights (--weights)" in message
    assert str(tmp_path / "hub" / "checkpoints") in message and "https://github.com/mseitzer/pytorch-fid" in message
    assert "\n" not in message and not (tmp_path / "hub").exists()
    with pytest.raises(FileNotFoundError, match="weights must be a file, got .*none.pth"):
        InceptionFeatures(tmp_path / "none.pth")


def test_weights_in_the_cache_are_found(weights, tmp_path, monkeypatch):
    cache = tmp_path / "checkpoints"
    cache.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (cache / module.FILE).symlink_to(weights)
    assert module._locate(None) == cache / "pt_inception-2015-12-05-6726825d.pth"
    with pytest.raises(ValueError, match="is not that of its name"):
        InceptionFeatures()  # random weights under the name of the real ones


def test_damaged_and_foreign_weights(tmp_path):
    pytest.importorskip("pytorch_fid")
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"half a file")
    with pytest.raises(
        ValueError, match="weights must be whole, got .*, whose sha256 [0-9a-f]{8}... is not that of its"
    ):
        InceptionFeatures(path)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="weights must be a torch file of tensors, got .*weights.pth"):
        InceptionFeatures(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="must be pytorch-fid's Inception, got .* without fc.weight"):
        InceptionFeatures(path)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, path)
    with pytest.raises(ValueError, match="must be pytorch-fid's Inception, got .*Missing key"):
        InceptionFeatures(path)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        InceptionFeatures(path, batch_size=0)


def test_nothing_is_unpickled(tmp_path):
    pytest.importorskip("pytorch_fid")
    torch.save({"fc.weight": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="weights must be a torch file of tensors"):
        InceptionFeatures(tmp_path / "evil.pth")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("missing", ["pytorch_fid", "torchvision"])
def test_a_missing_package_is_one_sentence(missing, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in (missing, "pytorch_fid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match="InceptionFeatures: needs the package pytorch-fid .*install it with"):
        InceptionFeatures()


def test_torchvision_of_another_torch_is_one_sentence(monkeypatch):
    """As it fails beside a torch with CUDA of another version: nothing is patched then."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    broken = type("Broken", (), {"find_spec": broken_torchvision})()
    monkeypatch.setattr(sys, "meta_path", [broken, *sys.meta_path])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(ImportError, match="InceptionFeatures: torchvision must fit torch .*nms does not exist"):
        module._torchvision()


def broken_torchvision(_self, name, *_):
    if name == "torchvision":
        raise RuntimeError("operator torchvision::nms does not exist")


def test_importing_the_package_imports_neither():
    code = "import sys, langevin_ext.metrics; print({'torchvision', 'pytorch_fid', 'ot', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
