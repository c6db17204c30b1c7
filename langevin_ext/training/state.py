"""What a training run keeps on disk, so that it goes on exactly where it stopped.

`OUT/checkpoint.safetensors` is a checkpoint (see `checkpoint`) with more tensors: adam.NAME.KIND, the moments and step
count of the optimiser, and log.sum, log.count, the losses since the last line of the log. Its metadata hold the step,
the settings and the fingerprint of the data. Nothing else is needed: noise, labels and data order are functions of the
step.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from .. import __version__
from .._files import remove_temporaries
from .._lock import NAME as LOCK
from . import checkpoint
from .trainer import Settings

CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"


def save(folder, trainer) -> None:
    """Writes the whole state of `trainer` to the checkpoint of the run, atomically."""
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    if trainer.ema is not None:
        tensors.update({f"ema.{name}": value for name, value in trainer.ema.state_dict().items()})
    for name, parameter in trainer.parameters.items():
        for kind, value in trainer.optimizer.state[parameter].items():
            tensors[f"adam.{name}.{kind}"] = value
    tensors.update({"log.sum": trainer.losses.sum, "log.count": trainer.losses.count})
    metadata = {"kind": "training", "step": trainer.step, "seconds": trainer.seconds, "settings": settings(trainer)}
    metadata |= {"skipped": trainer.skipped, "skipped_in_a_row": trainer.skipped_in_a_row}
    checkpoint.write(Path(folder) / CHECKPOINT, tensors, trainer.model.config(), metadata)


def publish(path, trainer, model, **more) -> None:
    """Writes `model`, the averaged network of `trainer`, for sampling, with where it comes from and `more`."""
    metadata = {
        "steps": trainer.step,
        "settings": trainer.settings,
        "data": trainer.fingerprint,
        "data_name": getattr(trainer.data, "name", "tensor"),
        **more,
        "langevin_ext": __version__,
        "torch": torch.__version__,
    }
    averaged = trainer.ema is not None
    ema = model.state_dict() if averaged else None
    checkpoint.save(path, model, ema=ema, raw=not averaged, metadata=metadata)


def settings(trainer) -> dict:
    """Everything that must be equal for a run to go on: settings, network, data."""
    network = {f"model.{name}": value for name, value in trainer.model.config().items()}
    return json.loads(json.dumps({**trainer.settings, **network, "data": trainer.fingerprint}))


def restore(folder, trainer) -> None:
    """Puts `trainer` into the state that the checkpoint of the run holds.

    Raises:
        ValueError: the checkpoint is damaged, or a setting differs from the run's; setting and both values are named.
    """
    path = Path(folder) / CHECKPOINT
    tensors, _, metadata, _ = checkpoint.read(path, "train")
    if metadata.get("kind") != "training":
        raise ValueError(f"train: {path} must be the checkpoint of a training run, got weights only")
    _compare(metadata["settings"], settings(trainer), path)
    groups: dict[str, dict] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        groups.setdefault(kind, {})[name] = value
    checkpoint.check_fit(trainer.model, groups["model"], f"train: {path}")
    trainer.model.load_state_dict(groups["model"])
    trainer.step, trainer.seconds = metadata["step"], metadata["seconds"]
    trainer.skipped, trainer.skipped_in_a_row = metadata.get("skipped", 0), metadata.get("skipped_in_a_row", 0)
    if trainer.ema is not None:
        trainer.ema.load_state_dict(groups["ema"], trainer.step)
    for key, value in groups.get("adam", {}).items():
        name, _, kind = key.rpartition(".")
        parameter = trainer.parameters[name]
        # the moments keep the memory format of their parameter, which the fused Adam takes for granted
        like = parameter.detach() if value.shape == parameter.shape else value
        moment = torch.empty_like(like, dtype=value.dtype, device=parameter.device).copy_(value)
        trainer.optimizer.state[parameter][kind] = moment
    trainer.losses.sum.copy_(groups["log"]["sum"])
    trainer.losses.count.copy_(groups["log"]["count"])


def _compare(theirs, ours, path):
    """Raises ValueError where a setting differs; one that the run does not name is newer, and had its default."""
    defaults = asdict(Settings())
    for name in sorted(theirs.keys() | ours.keys()):
        before = theirs.get(name, defaults.get(name))
        if before != ours.get(name):
            raise ValueError(f"train: {name} must be that of {path}, {_short(before)}, got {_short(ours.get(name))}")


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def folder(path, resume) -> Path:
    """The output folder, made if it is missing.

    Raises:
        ValueError: the path is a file, or resume is not "auto", True or False.
    """
    path = Path(path)
    if resume not in ("auto", True, False):
        raise ValueError(f"train: resume must be 'auto', True or False, got {resume!r}")
    if path.exists() and not path.is_dir():
        raise ValueError(f"train: out must be a folder, got the file {path}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def prepare(folder, resume) -> bool:
    """Looks at the output folder before anything is written; True if a run is there to go on with.

    Args:
        folder: pathlib.Path, which exists.
        resume: "auto", True or False.

    Raises:
        ValueError: resume does not fit what the folder holds: nothing is ever overwritten.
    """
    found = (folder / CHECKPOINT).exists()
    if resume is True and not found:
        raise ValueError(f"train: resume=True needs {folder / CHECKPOINT}, got a folder without it")
    if found and resume is False:
        raise ValueError(f"train: out must be empty or new with resume=False, got the earlier run in {folder}")
    others = sorted(path.name for path in folder.iterdir() if not path.name.endswith((".tmp", LOCK)))
    if others and not found:
        raise ValueError(f"train: out must be empty, new or an earlier run, got {folder} with {others[0]} in it")
    remove_temporaries(folder)
    return found
