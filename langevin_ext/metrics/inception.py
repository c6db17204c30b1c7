"""pytorch-fid's Inception network as features, and the Frechet inception distance in them.

The network and its weights are those of Heusel et al. 2017 (arXiv:1706.08500) as pytorch-fid converted them. The
package comes with the extra `fid`; the weights are one file, which is never fetched without being asked for.
"""

import hashlib
import re
import threading
from pathlib import Path

import torch
from tqdm import tqdm

from .frechet import FrechetDistance, compare

__all__ = ["InceptionFeatures", "fid"]

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
OPERATORS = ("nms", "qnms")  # of torchvision, needed by none of its networks but for its import
_libraries: list[torch.library.Library] = []  # of the operators; they are forgotten with their library
_lock = threading.Lock()  # pytorch_fid is changed for a moment


class InceptionFeatures:
    """Images to the 2048 features of pytorch-fid's Inception network (third pooling layer).

    Images are seen as FID sees PNG files: 8-bit, floor(clip(255 x + 1/2, 0, 255)), grey ones repeated to three
    channels, resized to 299 x 299 (bilinear). The network is in eval mode and in float32 (no TF32), so that rows depend
    on the batch size only by rounding.

    Attributes:
        name, size: "Inception pool3", 2048.
        path, sha256: the file of the weights and its hash.
    """

    name, size = "Inception pool3", 2048

    def __init__(self, weights=None, device=None, batch_size=50):
        """Reads the network.

        Args:
            weights: path of pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`; by default the file of this name in
                torch hub's cache, where pytorch-fid has it too.
            device: where to run; CUDA where torch sees it, else the CPU.
            batch_size: images at a time, at least 1.

        Raises:
            ModuleNotFoundError: pytorch-fid is not installed.
            ImportError: its torchvision does not fit this torch.
            FileNotFoundError: there are no weights.
            ValueError: the weights are damaged or of another network, or batch_size is out of range.
        """
        if batch_size < 1:
            raise ValueError(f"InceptionFeatures: batch_size must be at least 1, got {batch_size}")
        module = _pytorch_fid()
        self.path = _locate(weights)
        state, self.sha256 = _read(self.path)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size = batch_size
        self._network = _build(module, state, self.path).to(self.device).eval()
        self._classes = state["fc.weight"].to("cpu", torch.float64)

    def __call__(self, images) -> torch.Tensor:
        """The features of images.

        Args:
            images: (n, 1 or 3, H, W), float in [0, 1] (values outside are clipped) or uint8.

        Returns:
            float32 (n, 2048) on the CPU.

        Raises:
            ValueError: the shape is wrong or a value is not finite.
        """
        if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
            raise ValueError(f"InceptionFeatures: images must be (n, 1 or 3, H, W), got {tuple(images.shape)}")
        rows = torch.empty(len(images), self.size)
        starts = range(0, len(images), self.batch_size)
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            for start in tqdm(starts, desc=self.name, unit="batch", disable=None, leave=False):
                batch = eight_bit(images[start : start + self.batch_size])
                batch = batch.expand(-1, 3, -1, -1).to(self.device, torch.float32) / 255
                rows[start : start + self.batch_size] = self._network(batch)[0].flatten(1).cpu()
        return rows

    def probabilities(self, features) -> torch.Tensor:
        """The class probabilities that belong to features, for `inception_score`.

        As in the released inception score, without the bias of the last layer: softmax(W features).

        Args:
            features: (n, 2048), what this object returned for images.

        Returns:
            float64 (n, 1008).
        """
        return torch.softmax(features.to("cpu", torch.float64) @ self._classes.T, 1)


def eight_bit(images) -> torch.Tensor:
    """Images as a PNG keeps them: uint8 of clip(255 x + 1/2, 0, 255); uint8 as it is.

    Raises:
        ValueError: a value is not finite.
    """
    if images.dtype == torch.uint8:
        return images
    bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"eight_bit: images must be finite, got {len(bad)} that are not: {bad[:8]}")
    return images.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def fid(a, b, features=None, *, weights=None, device=None, batch_size=50) -> FrechetDistance:
    """Frechet inception distance (Heusel et al. 2017, arXiv:1706.08500).

    Args:
        a, b: images (n, 1 or 3, H, W), float in [0, 1] or uint8; or `Statistics`, or the path of a file of them, such
            as pytorch-fid's.
        features: an `InceptionFeatures` to use again; by default one is made of the next three arguments if a or b are
            images.
        weights, device, batch_size: see `InceptionFeatures`.

    Returns:
        The distance; printing it also prints the features and the two counts, which must be equal for distances to be
        compared.

    Raises:
        ValueError, FileNotFoundError, ImportError: see `InceptionFeatures` and `frechet_samples`.

    Warns:
        FewSamplesWarning: a set has fewer samples than features.
    """
    return compare("fid", a, b, lambda: features or InceptionFeatures(weights, device, batch_size))


def _pytorch_fid():
    """The module pytorch_fid.inception."""
    try:
        _torchvision()
        import pytorch_fid.inception as module
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"InceptionFeatures: needs the package pytorch-fid ({error}); install it with:"
            " pip install -c constraints.txt 'langevin_ext[fid]'",
            name=error.name,
        ) from error
    return module


def _torchvision():
    """Imports torchvision, also one built for CUDA beside a torch without it.

    Its compiled part, which defines the operators, does not load there, and its Python part then fails at the first of
    them. With their signatures defined the import goes through; nothing here calls them.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if torch.version.cuda is not None or "torchvision::" not in str(error):
            raise ImportError(f"InceptionFeatures: torchvision must fit torch {torch.__version__}: {error}") from error
        import sys

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half of it that was imported
        library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)
        import torchvision  # noqa: F401


def _locate(weights):
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"InceptionFeatures: weights must be a file, got {weights}")
        return Path(weights)
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"InceptionFeatures: {FILE} must be given as weights (--weights) or lie in torch hub's cache, got no file"
            f" {path}; download it from {URL}"
        )
    return path


def _read(path):
    """(state dictionary, sha256 of the file); a hash in the file's name must fit."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    named = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    if named and not sha256.startswith(named[1]):
        raise ValueError(
            f"InceptionFeatures: weights must be whole, got {path}, whose sha256 {sha256[:8]}... is not that of its"
            f" name; download it again from {URL}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle raise nearly anything
        raise ValueError(
            f"InceptionFeatures: weights must be a torch file of tensors, got {path}, which is damaged, of another"
            " kind, or holds objects, which are never unpickled"
        ) from error
    if not isinstance(state, dict) or "fc.weight" not in state:
        raise ValueError(f"InceptionFeatures: weights must be pytorch-fid's Inception, got {path} without fc.weight")
    return state, sha256


def _build(module, state, path):
    """pytorch-fid's network with this state; it has no argument for it and would download its own."""
    with _lock:
        download = module.load_state_dict_from_url
        module.load_state_dict_from_url = lambda *_, **__: state
        try:
            return module.InceptionV3([module.InceptionV3.BLOCK_INDEX_BY_DIM[InceptionFeatures.size]])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"InceptionFeatures: weights must be pytorch-fid's Inception, got {path}: {reason}"
            ) from error
        finally:
            module.load_state_dict_from_url = download
