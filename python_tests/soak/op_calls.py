"""Random calls of the ops, compared with `reference` or refused by a Python exception.

    python op_calls.py CALLS SEED    prints how many gave the right answer and how many were refused

Shapes with zeros and ones, strides of every kind, tensors that share memory, wrong dtypes and shapes, coordinates and
levels out of range, and sizes beyond any memory; the process has `MEMORY` bytes for them.
"""

import gc
import math
import os
import random
import resource
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F

from langevin_ext import ops, reference

MEMORY = 2**30
LARGEST = 2**21  # elements, of which the comparison makes ten or so copies in float64
REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, MemoryError)
SIZES = (0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 33)
DTYPES = (torch.float32, torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
OTHERS = (torch.int64, torch.bool, torch.uint8, torch.complex64)
LAYOUTS = ("plain", "plain", "channels_last", "columns", "transposed", "offset", "flipped")
# Rounding of sums in another order, several times over; a wrong element differs by about one.
CLOSE = {torch.float32: 2e-4, torch.float64: 1e-9, torch.bfloat16: 4e-2, torch.float16: 1e-2}


class Caller:
    """One random call: its tensors and numbers, and whether anything in it is wrong."""

    def __init__(self, number):
        self.random, self.wrong = random.Random(number), False

    def chance(self, probability=0.02):
        return self.random.random() < probability

    def shape(self, dims):
        shape = [self.random.choice(SIZES) for _ in range(dims)]
        while math.prod(shape) > LARGEST:
            shape[self.random.randrange(dims)] = 2
        if dims == 2 and self.chance(0.01):
            shape[-1] = 5000
        return tuple(shape)

    def dtype(self, allowed=DTYPES):
        if self.chance():
            self.wrong = True
            return self.random.choice(OTHERS)
        return self.random.choice(allowed)

    def tensor(self, shape, dtype, layout=None):
        """Values of order one in some memory format."""
        if self.chance():
            self.wrong = True
            shape = (*shape[:-1], shape[-1] + 1) if self.chance(0.5) else shape[:-1]
        layout = layout or self.random.choice(LAYOUTS)
        values = torch.randn(shape, generator=torch.Generator().manual_seed(self.random.randrange(2**31)))
        values = values.to(dtype) if dtype != torch.complex64 else values.to(torch.complex64)
        if not values.dim() or not values.numel():
            return values
        if layout == "channels_last" and values.dim() == 4:
            return values.contiguous(memory_format=torch.channels_last)
        if layout == "columns":
            return values.repeat_interleave(2, -1)[..., ::2]
        if layout == "transposed" and values.dim() > 1:
            return values.transpose(0, -1).contiguous().transpose(0, -1)
        if layout == "offset":  # not aligned to anything but its elements
            return torch.cat([values.new_zeros(1), values.flatten()])[1:].view(shape)
        if layout == "flipped":
            return values.flip(0).contiguous().flip(0)
        return values

    def huge(self, tensor):
        """Rarely a view with more elements than there is memory for."""
        if self.chance(0.003) and tensor.dim() > 1 and tensor.numel():
            self.wrong = True
            return tensor[:1].expand(2 ** self.random.choice((31, 32, 36, 62)) // tensor[0].numel(), *tensor.shape[1:])
        return tensor

    def coordinates(self, stream=True):
        values = {"seed": self.random.choice((0, 1, 2**63, 2**64 - 1)), "step": self.random.choice((0, 5, 2**32 - 1))}
        values["first"] = self.random.choice((0, 3, 2**31))
        if stream:
            values["stream"] = self.random.choice((0, 3, 2**32 - 1))
        if self.chance(0.03):
            self.wrong = True
            name = self.random.choice(list(values))
            values[name] = self.random.choice((-1, 2**64, 2**70, 1.5, None, "0", float("nan")))
        return values

    def number(self, low=-2.0):
        if self.chance(0.01):
            self.wrong = True
            return self.random.choice((float("nan"), float("inf"), -float("inf")))
        return self.random.uniform(low, 2.0)

    def sharing(self, shape, dtype):
        """Two tensors of a shape that overlap in memory, by a shift of some elements."""
        count, shift = max(1, torch.Size(shape).numel()), self.random.choice((0, 1, 3, 17))
        buffer = torch.randn(count + shift, generator=torch.Generator().manual_seed(count)).to(dtype)
        pair = [buffer[start : start + torch.Size(shape).numel()].view(shape) for start in (0, shift)]
        return pair if self.chance(0.5) else pair[::-1]

    def langevin_step(self):
        shape, dtype = self.shape(self.random.randint(2, 5)), self.dtype(DTYPES[:4])
        if dtype.is_floating_point and self.chance(0.1):
            x, score = self.sharing(shape, dtype)
        else:
            other = (dtype,) if dtype == torch.float64 else (torch.float32, torch.bfloat16, torch.float16)
            x, score = self.tensor(shape, dtype), self.tensor(shape, self.dtype(other))
        if self.chance():
            x, self.wrong = x[:1].expand(2, *x.shape[1:]) if x.dim() and len(x) else x, True
        mask = self.tensor(shape if self.chance(0.5) else shape[1:], torch.float32) > 0 if self.chance(0.3) else None
        return (self.huge(x), score, self.number(), abs(self.number())), {**self.coordinates(), "mask": mask}

    def table(self, buffer=None):
        """(table, place) of steps, the table at the beginning of a buffer, the row often outside it."""
        rows = self.random.randint(0, 3)
        shape = (rows, 4 if not self.chance(0.03) else 3)
        values = [[self.number(), abs(self.number()), self.random.choice((0, 7, 2**32 - 1)), 2] for _ in range(rows)]
        table = torch.tensor(values, dtype=torch.float64).view(rows, 4)[:, : shape[1]]
        if buffer is not None and len(buffer) >= table.numel():
            table = buffer[: table.numel()].view(shape).copy_(table)
        row = self.random.choice((-(2**63), -2, -1, 0, 0, 1, 2, rows - 1, rows, 2**62, 2**63 - 1))
        place = torch.tensor([row, self.random.choice((0, -1, 2**63 - 1)), self.random.choice((0, 3, 2**31))])
        if self.chance():
            place = self.random.choice((place.int(), place[:2], place.repeat_interleave(2)[::2], None))
        self.wrong = self.wrong or shape[1] != 4 or place is None or place.dtype != torch.int64
        self.wrong = self.wrong or place.shape != (3,) or not place.is_contiguous() or not table.is_contiguous()
        return table, place

    def langevin_table_step(self):
        (x, score, *_), options = self.langevin_step()
        buffer = None
        if x.dtype == torch.float64 and 12 < x.numel() < 2**20 and self.chance(0.5):  # the table within x, or beside it
            buffer, shift = torch.zeros(12 + x.numel(), dtype=x.dtype), self.random.choice((0, 3, 12))
            x = buffer[shift : shift + x.numel()].view(x.shape).copy_(x)
        table, place = self.table(buffer)
        return (x, score, table, place), {name: options[name] for name in ("stream", "mask")}

    def advance_row(self):
        (table, place), samples = self.table(), self.random.choice(SIZES)
        level = torch.full((samples,), 9)
        if self.chance(0.1) and isinstance(place, torch.Tensor) and place.dtype == torch.int64:
            buffer, start = torch.zeros(samples + 6, dtype=torch.int64), self.random.choice((0, 2, 3))
            place = buffer[: len(place)].copy_(place)
            level = buffer[start : start + samples]
            self.wrong = self.wrong or (start < 3 and samples > 0)  # two results in one place
        if self.chance():
            level, self.wrong = (
                self.random.choice((level.double(), level[None], torch.zeros(1, dtype=torch.int64).expand(3))),
                True,
            )
        return (place, table, level), {}

    def conv3x3(self):
        samples, height, width = self.shape(3)
        channels, outputs = (self.random.choice((0, 1, 3, 16, 16, 32, 48)) for _ in range(2))
        dtype = self.dtype(DTYPES[:5])
        x, weight = (
            self.tensor((samples, channels, height, width), dtype),
            self.tensor((outputs, channels, 3, 3), dtype),
        )
        bias = self.tensor((outputs,), dtype) if self.chance(0.5) else None
        dilation = self.random.choice((1, 1, 1, 2, 3, 4))
        if self.chance():
            dilation = self.random.choice((0, -1, -(2**40), 2**31, 2**62, 2**63 - 1, 2**70, 1.5, None))
            self.wrong = True
        self.wrong = self.wrong or 0 in (channels, outputs, height, width)  # which torch refuses
        return (self.huge(x) if outputs >= channels else x, weight, bias, dilation), {}

    def cld_step(self):
        samples, channels, *rest = self.shape(self.random.randint(2, 5))
        dtype = self.dtype(DTYPES[:4])
        u, score = self.tensor((samples, 2 * channels, *rest), dtype), self.tensor((samples, channels, *rest), dtype)
        if dtype.is_floating_point and samples == 1 and self.chance(0.3) and u.dim() > 1 and u.is_contiguous():
            score = u.narrow(1, self.random.choice((0, u.shape[1] // 4)), u.shape[1] // 2)
        a, b = [self.number() for _ in range(4)], [self.number() for _ in range(2)]
        noise = [abs(self.number()), self.number(), abs(self.number())]
        return (u, score, a, b, noise), self.coordinates(stream=False)

    def perturb(self):
        shape, dtype = self.shape(self.random.randint(2, 5)), self.dtype()
        sigma = self.tensor(shape[:1], torch.float64 if dtype == torch.float64 else torch.float32).abs()
        return (self.huge(self.tensor(shape, dtype)), sigma), self.coordinates()

    def dsm_loss(self):
        arguments, coordinates = self.perturb()
        return arguments, coordinates

    def instance_norm_plus(self):
        shape, dtype = self.shape(4), self.dtype()
        self.wrong = self.wrong or shape[1] == 0
        levels, parts = self.random.randint(1, 4), self.random.choice((2, 3))
        weight = self.tensor((levels, parts * shape[1]), torch.float64 if dtype == torch.float64 else torch.float32)
        low, high = 0, levels
        if self.chance(0.03):
            low, high = self.random.choice(((-3, 0), (levels, levels + 3), (2**40, 2**40 + 1), (-(2**63), 1 - 2**63)))
            self.wrong = shape[0] > 0 or self.wrong
        level = torch.randint(low, high, shape[:1], generator=torch.Generator().manual_seed(1))
        options = {"form": self.random.choice(("official", "paper")), "elu": self.chance(0.5)}
        if self.chance(0.3):
            options["residual"] = self.tensor(shape, dtype)
        return (self.huge(self.tensor(shape, dtype)), weight, level if self.chance(0.8) else level * 0), options

    def upsample_bicubic2x(self):
        shape, dtype = self.shape(4), self.dtype(DTYPES[:4])
        self.wrong = self.wrong or 0 in shape[2:]
        allowed = (None, torch.float32) if dtype == torch.float64 else (None, *DTYPES[2:3], *DTYPES[4:])
        options = {"a": self.number(), "sigma": abs(self.number()), "input_dtype": self.random.choice(allowed)}
        return (self.huge(self.tensor(shape, dtype)),), self.coordinates() | options

    def philox_normal(self):
        shape = self.shape(self.random.randint(1, 5))
        if self.chance(0.01):
            shape, self.wrong = (2**31, 2**20), True
        return (shape,), self.coordinates()

    philox_words = philox_normal


def convolution(x, weight, bias, dilation):
    """`F.conv2d` in float64, and its own answer where there are no channels."""
    shape = (*x.shape[:-3], len(weight), *x.shape[-2:])
    if 0 in weight.shape:
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    if 0 in shape:
        return x.new_zeros(shape) if bias is None else x.new_zeros(shape).copy_(bias.view(-1, 1, 1))
    wide = torch.complex128 if x.is_complex() else torch.float64
    tensors = [one if one is None else one.to(wide) for one in (x, weight, bias)]
    return F.conv2d(*tensors, padding=dilation, dilation=dilation).to(x.dtype)


EXPECTED = {"conv3x3": convolution}
OPS = [name for name in vars(Caller) if name in ops.__all__]


def copied(value):
    return value.clone(memory_format=torch.contiguous_format) if torch.is_tensor(value) else value


def call(number) -> str:
    """Makes one call; returns "right" or "refused", or raises AssertionError."""
    caller = Caller(number)
    name = caller.random.choice(OPS)
    arguments, options = getattr(caller, name)()
    description = f"call {number}: {name}{[getattr(one, 'shape', one) for one in arguments]} {options}"
    huge = any(torch.is_tensor(one) and one.numel() > 2**24 for one in arguments)
    try:
        expected_arguments = None if huge else [copied(one) for one in arguments]
        expected_options = {key: copied(value) for key, value in options.items()}
        result = getattr(ops, name)(*arguments, **options)
    except REFUSALS as error:
        assert caller.wrong, f"{description} was refused: {type(error).__name__}: {error}"
        assert not isinstance(error, RuntimeError) or "INTERNAL ASSERT" not in str(error), description
        return "refused"
    assert expected_arguments is not None, f"{description} gave an answer"
    expected = EXPECTED.get(name, getattr(reference, name, None))(*expected_arguments, **expected_options)
    if result is None:  # what it changes is all it gives
        result, expected = tuple(arguments), tuple(expected_arguments)
    several = isinstance(result, tuple)
    for actual, wanted in zip(result if several else [result], expected if several else [expected], strict=True):
        close = CLOSE.get(actual.dtype, 1e-4 if actual.is_complex() else 0)
        close = close if name != "philox_normal" else 0
        assert actual.shape == wanted.shape and actual.dtype == wanted.dtype, description
        scale = wanted.double().abs().amax().item() if wanted.numel() and close else 1.0
        bound = close * max(1.0, min(scale, 1e30))
        exact = not actual.dtype.is_floating_point and not actual.is_complex()
        actual, wanted = (one if exact or one.is_complex() else one.double() for one in (actual, wanted))
        same = torch.allclose(actual, wanted, rtol=close, atol=bound, equal_nan=True)
        same = torch.equal(actual, wanted) if exact else same
        assert same, f"{description}: differs from the reference"
    return "right"


def main(calls, first):
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, resource.RLIM_INFINITY))
    counts = {"right": 0, "refused": 0}
    for number in range(first, first + calls):
        counts[call(number)] += 1
        if number % 1000 == 0:
            gc.collect()
    print(counts)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
