"""langevin_table_step and advance_row: the bits of langevin_step, with everything read from memory."""

import pytest
import torch
from op_cases import IMAGE, LAYOUTS, SHAPES, arrange, randn, same_for_thread_counts

from langevin_ext.ops import advance_row, langevin_step, langevin_table_step

SEED = 2**63 + 12345
ROWS = [[0.02, 0.2, 5.0, 3.0], [0.3, 0.0, 0.0, 1.0], [-1e-3, 2.0, 2.0**32 - 1, 0.0]]


def table():
    return torch.tensor(ROWS, dtype=torch.float64)


def place(row=0, first=3):
    return torch.tensor([row, SEED - 2**64, first])


def check(x, score, mask=None, row=0, stream=0):
    score_coef, noise_coef, step, _ = ROWS[row]
    at = {"seed": SEED, "step": int(step), "first": 3, "stream": stream}
    expected = langevin_step(x.clone(), score, score_coef, noise_coef, mask=mask, **at)
    assert langevin_table_step(x, score, table(), place(row), stream=stream, mask=mask) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("row", [0, 1, 2])
def test_bits_of_the_step(backend, shape, row):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        check(randn(shape), randn(shape, dtype, 1), row=row)
    check(randn(shape, torch.float64), randn(shape, torch.float64, 1), row=row, stream=7)


@pytest.mark.parametrize("score_layout", LAYOUTS)
@pytest.mark.parametrize("x_layout", LAYOUTS)
def test_memory_formats_and_masks(backend, x_layout, score_layout):
    for mask in (None, randn(IMAGE, seed=2) > 0, randn(IMAGE[1:], seed=2) > 0):
        check(arrange(randn(IMAGE), x_layout), arrange(randn(IMAGE, seed=1), score_layout), mask)


@pytest.mark.parametrize("row", [-1, 3, 2**62, 2**63 - 1, -(2**63)])
def test_a_row_outside_makes_nan(backend, row):
    x, mask = randn(IMAGE), randn(IMAGE, seed=2) > 0
    known = x[mask].clone()
    langevin_table_step(x, randn(IMAGE, seed=1), table(), place(row), mask=mask)
    assert x[~mask].isnan().all() and torch.equal(x[mask], known)


def test_thread_counts_give_the_same_bits():
    x, score = randn((6, 3, 50, 70)), randn((6, 3, 50, 70), seed=1)
    same_for_thread_counts(lambda: langevin_table_step(x.clone(), score, table(), place()))


def test_rows_in_turn(backend):
    where, level = place(-2), torch.full((4,), 9)
    found = []
    for _ in range(6):
        advance_row(where, table(), level)
        found.append((where.tolist(), level.tolist()))
    levels = [-1, 3, 1, 0, -1, -1]
    assert found == [([row, SEED - 2**64, 3], [levels[row + 1]] * 4) for row in range(-1, 5)]


def test_the_last_row_is_followed_by_the_first(backend):
    where, level = place(2**63 - 1), torch.zeros(1, dtype=torch.int64)
    advance_row(where, table(), level)
    assert where[0] == -(2**63) and level == -1


def test_a_table_within_the_state(backend):
    """What is read of it is what was there before the step."""
    buffer = torch.cat([table().flatten(), randn((1, 300), torch.float64).flatten()])
    x, rows, score = buffer[:300].view(2, 150), buffer[:12].view(3, 4), randn((2, 150), torch.float64, 1)
    expected = langevin_step(x.clone(), score, *ROWS[1][:2], seed=SEED, step=0, first=3)
    assert torch.equal(langevin_table_step(x, score, rows, place(1)), expected)


@pytest.mark.parametrize("start", [0, 2, 3])
def test_results_in_one_place_are_refused(backend, start):
    buffer = torch.full((9,), 5)
    where, level = buffer[:3], buffer[start : start + 4]
    if start == 3:
        return advance_row(where, table(), level)
    with pytest.raises(ValueError, match="^advance_row: place, table and level must not share memory, got tensors"):
        advance_row(where, table(), level)


def test_opcheck():
    x, score, mask = randn(IMAGE), randn(IMAGE, seed=1), randn(IMAGE[1:]) > 0
    torch.library.opcheck(torch.ops.langevin_ext.langevin_table_step.default, (x, score, mask, table(), place(), 0))
    level = torch.zeros(2, dtype=torch.int64)
    torch.library.opcheck(torch.ops.langevin_ext.advance_row.default, (place(), table(), level))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cuda_gives_the_bits_of_the_cpu(dtype, layout):
    shape = (6, 3, 50, 70)
    x, score, mask = arrange(randn(shape), layout), randn(shape, dtype, 1), randn(shape[1:]) > 1
    for row in (0, 1, 2):
        moved, rows, where = x.cuda(), table().cuda(), place(row - 1).cuda()
        level = torch.zeros(6, dtype=torch.int64, device="cuda")
        advance_row(where, rows, level)
        langevin_table_step(moved, score.cuda(), rows, where, mask=mask.cuda())
        assert torch.equal(moved.cpu(), langevin_table_step(x.clone(), score, table(), place(row), mask=mask))
        assert level.tolist() == [int(ROWS[row][3])] * 6


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((None, X, table(), place()), TypeError, "x must be a tensor, got NoneType"),
        ((X, X.double(), table(), place()), TypeError, "score must be float32, bfloat16, float16, got float64"),
        ((X, X, table().float(), place()), TypeError, "table must be float64, got float32"),
        ((X, X, table()[:, :3], place()), ValueError, r"table must be contiguous and of shape \(R, 4\), got \(3, 3\)"),
        ((X, X, table()[::2], place()), ValueError, r"table must be contiguous and of shape \(R, 4\), got \(2, 4\)"),
        ((X, X, table(), place().int()), TypeError, "place must be int64, got int32"),
        ((X, X, table(), place()[:2]), ValueError, r"place must be contiguous and of shape \(3,\), got \(2,\)"),
        ((X, X, table().to("meta"), place()), ValueError, "table must be on x's device cpu, got meta"),
        ((torch.zeros(2, 3, requires_grad=True), X, table(), place()), ValueError, "x must not require grad, .*"),
    ],
)
def test_mistakes_are_named(arguments, error, message):
    with pytest.raises(error, match=f"^langevin_table_step: {message}$"):
        langevin_table_step(*arguments)


def test_mistakes_of_advance_row_are_named():
    with pytest.raises(TypeError, match="^advance_row: level must be int64, got float32$"):
        advance_row(place(), table(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"^advance_row: level must be contiguous and of shape \(N,\), got \(2, 2\)$"):
        advance_row(place(), table(), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="^advance_row: place must be on level's device cpu, got meta$"):
        advance_row(place().to("meta"), table(), torch.zeros(2, dtype=torch.int64))
