"""What the tests of the ops share: shapes and memory formats to try, thread counts, rounding units, error cases."""

import contextlib
import threading

import pytest
import torch

SHAPES = [
    (0, 3),
    (2, 0),
    (1, 1),
    (2, 3),
    (3, 4),
    (2, 5),
    (2, 3, 7),
    (2, 3, 5, 7),
    (1, 2, 3, 4, 5),
    (2, 4100),
    (1, 9001),
]
IMAGE = (3, 3, 6, 7)
LAYOUTS = ["contiguous", "channels_last", "columns", "transposed"]
LARGE = (6, 3, 50, 70)  # enough elements for three threads, an odd number of pieces, no multiple of 256

# Largest relative error of one rounding to the dtype, and the largest absolute one among subnormals.
ROUNDING = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
SUBNORMAL = {torch.float64: 0.0, torch.float32: 2.0**-150, torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}


def compute_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def randn(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sigmas(n, dtype=torch.float32):
    """Levels from 1 down to 0.01, no two alike."""
    return torch.logspace(0, -2, max(n, 1), dtype=torch.float64)[:n].to(compute_dtype(dtype))


def per_sample(values, tensor):
    return values.double().view(-1, *[1] * (tensor.dim() - 1))


def arrange(tensor, layout):
    """The same values in a fresh tensor of another memory format."""
    if layout == "channels_last":
        return tensor.clone(memory_format=torch.channels_last)
    if layout == "columns":  # every second column of something wider
        wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), 7.0)
        view = wide[..., ::2]
        return view.copy_(tensor)
    if layout == "transposed":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    return tensor.clone(memory_format=torch.contiguous_format)


def assert_within(actual, expected, bound):
    """|actual - expected| <= bound, element by element, in float64."""
    error = (actual.double() - expected.double()).abs()
    assert not error.isnan().any(), "NaN"
    excess = error - bound
    assert (excess <= 0).all(), f"an error of {error.flatten()[excess.argmax()]:.3g} is {excess.max():.3g} too large"


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_new_thread(function):
    """function() in a Python thread of its own, which does not inherit torch's settings."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def same_for_thread_counts(function):
    """The results of function() with 1, 2, 3 and 5 threads and in a new Python thread are the same bits."""
    with threads(1):
        expected = function()
    for count in (2, 3, 5):
        with threads(count):
            assert_same_bits(function(), expected)
    assert_same_bits(in_new_thread(function), expected)


def assert_same_bits(actual, expected):
    if isinstance(expected, torch.Tensor):
        actual, expected = (actual,), (expected,)
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


# Coordinates of the noise that no op accepts.
BAD_COORDINATES = [
    ({"seed": -1}, r"seed must be in \[0, 2\^64\), got -1"),
    ({"seed": 2**64}, r"seed must be in \[0, 2\^64\), got 18446744073709551616"),
    ({"step": -1}, r"step must be in \[0, 2\^32\), got -1"),
    ({"step": 2**32}, r"step must be in \[0, 2\^32\), got 4294967296"),
    ({"stream": 2**32}, r"stream must be in \[0, 2\^32\), got 4294967296"),
    ({"first": -1}, r"first must be in \[0, 2\^32 - 2\], got -1"),
    ({"first": 2**32 - 1}, r"first must be in \[0, 2\^32 - 2\], got 4294967295"),
    ({"seed": 1.5}, "seed must be an integer, got 1.5"),
    ({"step": 2.0}, "step must be an integer, got 2.0"),
    ({"first": None}, "first must be an integer, got None"),
    ({"stream": "0"}, "stream must be an integer, got '0'"),
]


def check_bad_coordinates(name, call, stream=True):
    """call(**coordinates) on two samples refuses each bad coordinate in its own words; stream: it takes one."""
    for change, message in BAD_COORDINATES:
        if not stream and "stream" in change:
            continue
        with pytest.raises(ValueError, match=f"^{name}: {message}$"):
            call(**{"seed": 1, "step": 2, **change})
