"""Checkpoints: a network's weights with what is needed to rebuild it, in one safetensors file.

    tensors     model.NAME: the weights as trained; ema.NAME: their moving average; other names belong to the trainer
    header      format, config (JSON that rebuilds the network), metadata (JSON: where it comes from), sha256, checksum

`sha256` identifies the content (tensors and config), `checksum` also covers the metadata; both are checked on reading.
Nothing in a checkpoint is ever unpickled.
"""

import hashlib
import json
from pathlib import Path

import torch

from .._tensor_files import read_tensors, tensor_hash, write_tensors

__all__ = ["save", "load", "describe", "shipped"]

FORMAT = "langevin_ext checkpoint 1"
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"


def save(path, model, *, ema=None, metadata=None, raw=True, dtype=None) -> str:
    """Writes a network, atomically: the earlier file stays whole until the new one is.

    Args:
        path: the file to write, `NAME.safetensors`; its folder must exist.
        model: torch.nn.Module with `config()`, a dictionary from which `langevin_ext.models.build` makes it again.
        ema: the averaged weights, an `EMA` or a dictionary like `model.state_dict()`.
        metadata: dictionary that JSON can hold: where the weights come from.
        raw: keep the weights as trained beside the averaged ones.
        dtype: float type to store parameters in (torch.float16 halves the file); they are loaded as the network's own.

    Returns:
        The sha256 of the content.

    Raises:
        TypeError: the model has no config(), or config or metadata do not fit into JSON.
        ValueError: no weights are left to write, or float16 cannot hold one.
        OSError: the file cannot be written.
    """
    if not callable(getattr(model, "config", None)):
        raise TypeError(f"save: model must have config(), a dictionary that rebuilds it, got {type(model).__name__}")
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()} if raw else {}
    if ema is not None:
        ema = ema if isinstance(ema, dict) else ema.state_dict()
        tensors.update({f"ema.{name}": value for name, value in ema.items()})
    if not tensors:
        raise ValueError("save: ema must be given where raw=False, got None")
    if dtype is not None:
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        tensors = {
            name: _narrow(name, value, dtype) if name.partition(".")[2] in parameters else value
            for name, value in tensors.items()
        }
    return write(path, tensors, model.config(), metadata or {})


def _narrow(name, value, dtype):
    if not value.is_floating_point():
        return value
    narrow = value.detach().to(dtype)
    if not torch.equal(narrow.isfinite(), value.isfinite()):
        raise ValueError(f"save: dtype must hold every weight, got {dtype} for {name} up to {value.abs().max():.3g}")
    return narrow


def write(path, tensors, config, metadata) -> str:
    """Writes named tensors with their config and metadata atomically; returns the sha256 of the content."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(tensors.items())}
    try:
        config, metadata = (json.dumps(value, sort_keys=True, allow_nan=False) for value in (config, metadata))
    except (TypeError, ValueError) as error:
        raise TypeError(f"save: config and metadata must fit into JSON: {error}") from error
    sha256, checksum = _hashes(tensors, config, metadata)
    header = {"format": FORMAT, "config": config, "metadata": metadata, "sha256": sha256, "checksum": checksum}
    write_tensors(path, tensors, header)
    return sha256


def _hashes(tensors, config, metadata):
    """(sha256 of tensors and config, the same with the metadata)."""
    content = tensor_hash(tensors, config)
    return content, hashlib.sha256((content + metadata).encode()).hexdigest()


def read(path, name="load"):
    """Reads what `write` wrote and checks it against its hashes.

    Returns:
        (tensors, config, metadata, sha256): dictionary of CPU tensors, two dictionaries, and a string.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{name}: file must exist, got {path}")
    try:
        tensors, header = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{name}: {path} is no whole safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(f"{name}: {path} must be of the format {FORMAT!r}, got {header.get('format')!r}")
    if _hashes(tensors, header.get("config", ""), header.get("metadata", "")) != (
        header.get("sha256"),
        header.get("checksum"),
    ):
        raise ValueError(f"{name}: {path} is damaged: its content does not match its checksum")
    try:
        config, metadata = json.loads(header["config"]), json.loads(header["metadata"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {path} must hold JSON for config and metadata: {error}") from error
    if not isinstance(config, dict) or not isinstance(metadata, dict):
        raise ValueError(f"{name}: {path} must hold dictionaries for config and metadata, got others")
    return tensors, config, metadata, header["sha256"]


def shipped(kind="") -> list:
    """The names of the checkpoints that come with the package.

    Args:
        kind: "" for all; "score", "classifier" or "fsrcnn", which stands at the end of a name unless it is a score's.
    """
    names = sorted(path.stem for path in SHIPPED.glob("*.safetensors"))
    others = tuple(f"-{other}" for other in ("classifier", "fsrcnn"))
    if kind == "score":
        return [name for name in names if not name.endswith(others)]
    return [name for name in names if name.endswith(kind)]


def _locate(path, name):
    """The file that `path` means: a plain name without suffix is a shipped checkpoint."""
    text = str(path)
    if not isinstance(path, str) or "/" in text or "\\" in text or Path(text).suffix:
        return Path(path)
    if text not in shipped():
        raise ValueError(
            f"{name}: path must be a file or one of the shipped checkpoints"
            f" ({', '.join(shipped()) or 'none'}), got {text!r}"
        )
    return SHIPPED / f"{text}.safetensors"


def load(path, device=None, ema=True, *, build=None) -> torch.nn.Module:
    """Rebuilds a trained network from a checkpoint, ready to sample with.

    Args:
        path: file written by `save` or by `train` (also its `checkpoint.safetensors`), or the name of a shipped
            checkpoint such as "digits".
        device: where to put the network, the CPU by default.
        ema: take the averaged weights where there are some; False: the weights as trained.
        build: config -> network, for classes of your own; `langevin_ext.models.build` by default.

    Returns:
        The network in eval mode, weights in its own type whatever the file stores; `data_fingerprint` is that of the
        images it was trained on, where the file tells.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name is unknown, the file is damaged or does not fit the network it names.
    """
    path = _locate(path, "load")
    tensors, config, metadata, _ = read(path)
    kinds = [kind for kind in ("ema", "model") if any(key.startswith(kind + ".") for key in tensors)]
    if not ema and "model" not in kinds:
        raise ValueError(f"load: ema must be True for {path}, which holds averaged weights only, got False")
    if not kinds:
        raise ValueError(f"load: {path} must hold weights, got none")
    prefix = (kinds[0] if ema else "model") + "."
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if build is None:
        from ..models import build

        check_fit(_without_memory(build, config, path), state, f"load: {path}")
    model = build(config)
    check_fit(model, state, f"load: {path}")
    model.load_state_dict(state)
    model.data_fingerprint = metadata.get("data") or metadata.get("settings", {}).get("data")
    return model.to(device).eval()


def _without_memory(build, config, path):
    """The network of a config with shapes alone: what does not fit its weights must not take any memory."""
    try:
        with torch.device("meta"):
            return build(config)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"load: {path} must hold the config of a network, got one that fails: {reason}") from error


def check_fit(model, state, what) -> None:
    """Raises ValueError, naming the first few tensors, where `state` is not exactly the state of `model`."""
    own = model.state_dict()
    faults = [f"{name} is missing" for name in own if name not in state]
    faults += [f"{name} is unknown" for name in state if name not in own]
    faults += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{what} must fit {type(model).__name__}, got: {'; '.join(faults[:3])}{more}")


def describe(path) -> dict:
    """What a checkpoint is, without building its network.

    Returns:
        Dictionary of path, sha256 of the content, config, metadata, weights ("ema", "model"), number of parameters,
        dtype as stored, and bytes of the file.
    """
    path = _locate(path, "describe")
    tensors, config, metadata, sha256 = read(path, "describe")
    weights = [kind for kind in ("ema", "model") if any(key.startswith(kind + ".") for key in tensors)]
    chosen = [value for key, value in tensors.items() if weights and key.startswith(weights[0] + ".")]
    return {
        "path": str(path),
        "sha256": sha256,
        "config": config,
        "metadata": metadata,
        "weights": weights,
        "parameters": sum(value.numel() for value in chosen),
        "dtype": ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in chosen})),
        "bytes": path.stat().st_size,
    }
