"""What a run has produced so far, on the CPU, and its checkpoint file.

The file holds the finished samples, snapshots and diagnostics, the state of the batch in progress, and the settings,
as safetensors with JSON metadata and a checksum over all of it. It is replaced as a whole (written beside, flushed,
renamed), so that a crash at any moment leaves the earlier file or the new one. It is kept when the run is complete: the
same call then returns at once.
"""

import contextlib
import functools
import hashlib
import json
import time
import types
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
import torch

from .._lock import locked
from .._tensor_files import read_tensors, tensor_hash, write_tensors
from . import inputs

FORMAT = "langevin_ext sampling run 2"
WITHOUT_CHECKSUM = "langevin_ext sampling run 1"  # of version 0.4 and before, still read
POSITION = ("batch", "stage", "row", "seconds")
SAVING_SHARE = 0.05  # of the time that may go into saving
ATOMS = (bool, int, float, complex, str, bytes, np.generic, torch.dtype, torch.device, PurePath, types.EllipsisType)
STATISTICS = ("score_norm", "mean", "variance", "nonfinite")


@dataclass
class Record:
    """Results and position of a run; `state` is the batch in progress after `row` rows of stage `stage`."""

    x: torch.Tensor  # (n, C, H, W)
    snapshots: list[torch.Tensor]  # each (n, C, H, W), or the first of these
    statistics: torch.Tensor  # (batches, levels, 4) float64
    batch: int = 0
    stage: int = 0
    row: int = 0
    seconds: float = 0.0
    state: torch.Tensor | None = field(default=None, repr=False)

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {f"snapshot.{i}": snapshot for i, snapshot in enumerate(self.snapshots)}
        named |= {"x": self.x, "statistics": self.statistics}
        return named if self.state is None else named | {"state": self.state}


def new_record(plan, kept, dtype, count=None) -> Record:
    """An empty record; `kept` are the (stage, row) at which snapshots of the first `count` samples are taken."""
    count = plan.n if count is None else count
    levels = sum(len(stage.level_ends) for stage in plan.stages)
    snapshots = [torch.zeros(count, *plan.shapes[plan.stages[stage].model], dtype=dtype) for stage, _ in kept]
    return Record(
        torch.zeros(plan.n, *plan.shape, dtype=dtype),
        snapshots,
        torch.zeros(plan.batches, levels, len(STATISTICS), dtype=torch.float64),
    )


class Checkpoint:
    """The file of one run.

    Args:
        path: where, or None for no file.
        settings: JSON-able dict of everything the samples depend on.

    Raises:
        ValueError: the path is a folder, or in none.
    """

    def __init__(self, path, settings):
        self.path = inputs.new_file("checkpoint", path)
        self.settings = json.loads(json.dumps(settings, default=str))
        self.due = 0.0

    def load(self, record) -> bool:
        """Fills `record` from the file, if there is one.

        Raises:
            ValueError: the file is no sampling run, is damaged, or is one with other settings; the message names the
                first.
        """
        if self.path is None or not self.path.exists():
            return False
        try:
            tensors, metadata = read_tensors(self.path)
        except ValueError as error:
            raise ValueError(f"sample: argument checkpoint cannot be read, {self.path}: {error}") from None
        if metadata.get("format") not in (FORMAT, WITHOUT_CHECKSUM):
            raise ValueError(f"sample: argument checkpoint must be the file of a sampling run, got {self.path}")
        if metadata["format"] == FORMAT and metadata.get("checksum") != _checksum(tensors, metadata):
            raise self._damaged("its content does not match its checksum")
        try:
            stored, position = (json.loads(metadata[name]) for name in ("settings", "position"))
            self._compare(stored)
            self._fill(record, tensors, position)
        except (KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:  # without a checksum
            raise self._damaged(f"{type(error).__name__}, {error}") from error
        return True

    def held(self, complete):
        """Keeps other processes from the file while the block runs, unless the run in it is complete."""
        if self.path is None or complete:
            return contextlib.nullcontext()
        return locked(self.path, "sample: argument checkpoint")

    def _damaged(self, why):
        return ValueError(f"sample: checkpoint {self.path} is damaged: {why}; delete it to begin again")

    @staticmethod
    def _fill(record, tensors, position):
        for name, tensor in record.tensors().items():
            if tensors[name].shape != tensor.shape:
                raise TypeError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}")
            tensor.copy_(tensors[name])
        record.state = tensors.get("state")
        for name in POSITION:
            setattr(record, name, position[name])

    def _compare(self, stored):
        for name in (*self.settings, *stored):
            now, then = self.settings.get(name), stored.get(name)
            if now != then:
                raise ValueError(
                    f"sample: checkpoint {self.path} is of a run with another {name}: {then!r} there, "
                    f"{now!r} now; use another path or delete it"
                )

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return self.path is not None and time.monotonic() >= self.due

    def save(self, record) -> None:
        if self.path is None:
            return
        began = time.monotonic()
        position = {name: getattr(record, name) for name in POSITION}
        metadata = {
            "format": FORMAT,
            "settings": json.dumps(self.settings),
            "position": json.dumps(position),
            "settings_hash": hashlib.sha256(json.dumps(self.settings).encode()).hexdigest(),
        }
        tensors = {name: tensor.contiguous() for name, tensor in record.tensors().items()}
        write_tensors(self.path, tensors, metadata | {"checksum": _checksum(tensors, metadata)})
        now = time.monotonic()
        self.due = now + (now - began) / SAVING_SHARE


def _checksum(tensors, metadata) -> str:
    """SHA-256 over everything in the file."""
    about = {name: text for name, text in metadata.items() if name != "checksum"}
    return tensor_hash(tensors, json.dumps(about, sort_keys=True))


def fingerprint(value) -> str:
    """A short hash of a tensor, a network's parameters, or the class and public attributes of another model.

    Attributes that begin with `_` do not count, except `_constants`. Functions count by their code, defaults and
    closure, not by the globals they use.
    """
    digest = hashlib.sha256(type(value).__qualname__.encode())
    for piece in _pieces(value, set()):
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()[:16]


def _pieces(value, above):
    """The bytes that identify a value; `above` are the ids of the containers it is in, which may contain themselves."""
    yield type(value).__qualname__.encode()
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif value is None or isinstance(value, ATOMS):
        yield repr(value).encode()
    elif isinstance(value, type | types.ModuleType):
        yield f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}".encode()
    elif id(value) not in above:
        parts = _parts(value)
        yield len(parts).to_bytes(8, "little")
        for part in parts:
            yield from _pieces(part, above | {id(value)})


def _parts(value) -> list:
    """What a container, function or object is made of."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, set | frozenset):
        return sorted(map(fingerprint, value))
    if isinstance(value, np.ndarray):
        return [value.shape, value.tolist()]
    if isinstance(value, torch.nn.Module):
        return _parts(value.state_dict()) + ([torch.as_tensor(value.sigmas)] if hasattr(value, "sigmas") else [])
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.CodeType):
        return [value.co_code, value.co_names, value.co_consts]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    name = [getattr(value, "__module__", None), getattr(value, "__qualname__", None)]
    if isinstance(value, types.FunctionType):
        closure = [_content(cell) for cell in value.__closure__ or ()]
        return [*name, value.__code__, value.__defaults__, value.__kwdefaults__, closure]
    attributes = getattr(value, "__dict__", {})
    public = {key: item for key, item in attributes.items() if key == "_constants" or not key.startswith("_")}
    given = [torch.as_tensor(value.sigmas)] if hasattr(value, "sigmas") else []
    return [*name, public, *given]


def _content(cell):
    """The value in a cell of a closure, None while it has none."""
    try:
        return cell.cell_contents
    except ValueError:
        return None
