"""The Langevin update with everything that changes from step to step in tensors, so that a captured step serves any
schedule: a table of steps, and the place in it.

    table (R, 4) float64: score_coef, noise_coef, step, level of each row
    place (3,) int64: row, the 64 bits of the seed, first
"""

import torch

from .. import _native, reference
from .common import STATE, apart, check_batch, check_tensor, define, dense, write_back, written
from .langevin_step import check_images

COLUMNS = ("score_coef", "noise_coef", "step", "level")


def _overlap(a, b):
    return a.data_ptr() < b.data_ptr() + b.nbytes and b.data_ptr() < a.data_ptr() + a.nbytes


def _advance_row(place, table, level):
    if _overlap(place, level) or _overlap(table, level) or _overlap(place, table):
        raise ValueError("advance_row: place, table and level must not share memory, got tensors that do")
    core = _native.core(level.device)
    if core is None:
        reference.advance_row(place, table, level)
        return
    core.advance_row(place, table, level)
    written(place)
    written(level)


_advance_row_op = define(
    "advance_row(Tensor(a!) place, Tensor table, Tensor(b!) level) -> ()",
    _advance_row,
    lambda place, table, level: None,
)


def _langevin_table_step(x, score, mask, table, place, stream):
    core = _native.core_for(x)
    if core is None:
        reference.langevin_table_step(x, score, table, place, stream=stream, mask=mask)
        return
    target = dense(x)
    known = None if mask is None else apart(mask.contiguous(), target)
    score = apart(dense(score), target)
    table, place = apart(table, target), apart(place, target)
    core.langevin_table_step(target, score, known, table, place, stream, torch.get_num_threads())
    write_back(x, target)


_langevin_table_step_op = define(
    "langevin_table_step(Tensor(a!) x, Tensor score, Tensor? mask, Tensor table, Tensor place, int stream) -> ()",
    _langevin_table_step,
    lambda x, score, mask, table, place, stream: None,
)


def advance_row(place, table, level) -> None:
    """To the next row of a table of steps, in place: place[0] += 1, and level[n] = the level of that row for every n.

    Args:
        place: (3,) int64, contiguous: row, seed, first. The seed's 64 bits are those of an int64.
        table: (R, 4) float64, contiguous: score_coef, noise_coef, step, level.
        level: (N,) int64, contiguous; -1 where the row is outside the table.

    Raises:
        TypeError, ValueError: a dtype, shape, device or memory format does not fit, or they share memory.
    """
    name = "advance_row"
    check_tensor(name, "level", level, (torch.int64,))
    if level.dim() != 1 or not level.is_contiguous():
        raise ValueError(f"{name}: level must be contiguous and of shape (N,), got {tuple(level.shape)}")
    _check_table(name, table, place, "level", level)
    _advance_row_op(place, table, level)


def langevin_table_step(x, score, table, place, *, stream=0, mask=None):
    """One step of `langevin_step` in place, with the coefficients and the noise that table[place[0]] says.

        score_coef, noise_coef, step, level = table[row], row, seed, first = place
        x <- x + score_coef score + noise_coef z(seed, step, first)

    The values of table and place are read where they lie when the step runs, not when it is called: captured as a part
    of a CUDA graph it makes another step with each replay. Its results are those of `langevin_step`, bit for bit; a row
    outside the table makes x NaN.

    Args:
        x: (samples, ...) float32, or float64; changed in place.
        score: x's shape; float32, bfloat16 or float16, or float64 with a float64 x.
        table, place: see `advance_row`. Nobody checks the numbers in them: coefficients must be finite, the noise's not
            negative, step and first + samples below 2^32.
        stream: of the noise z, see `langevin_ext.noise`.
        mask: bool, x's shape or one sample's shape; True marks known pixels, which stay as they are.

    Returns:
        x.

    Raises:
        TypeError, ValueError: a dtype, shape, device or memory format does not fit.
    """
    name = "langevin_table_step"
    check_tensor(name, "x", x, STATE)
    check_batch(name, "x", x)
    check_images(name, x, score, mask)
    _check_table(name, table, place, "x", x)
    reference.check_counter(name, 0, 0, 0, stream, x.shape)
    _langevin_table_step_op(x, score, mask, table, place, stream)
    return x


def _check_table(name, table, place, label, tensor):
    check_tensor(name, "table", table, (torch.float64,))
    check_tensor(name, "place", place, (torch.int64,))
    if table.dim() != 2 or table.shape[1] != len(COLUMNS) or not table.is_contiguous():
        raise ValueError(f"{name}: table must be contiguous and of shape (R, 4), got {tuple(table.shape)}")
    if place.shape != (3,) or not place.is_contiguous():
        raise ValueError(f"{name}: place must be contiguous and of shape (3,), got {tuple(place.shape)}")
    for one, value in (("table", table), ("place", place)):
        if value.device != tensor.device:
            raise ValueError(f"{name}: {one} must be on {label}'s device {tensor.device}, got {value.device}")
