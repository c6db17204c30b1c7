"""Section of the GPU report: the forward pass of NCSN, ngf 128, against the released network's and its floor."""

import copy
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from gpu_common import sentence
from gpu_kernels import SEARCHED, planned, release
from official import official_forward

from langevin_ext import engine
from langevin_ext.benchmarking.kernels import rewritten_norm
from langevin_ext.benchmarking.network import work
from langevin_ext.benchmarking.timing import captured, interleaved
from langevin_ext.models import NCSN, ConditionalInstanceNorm2dPlus

LARGEST_ERROR = {"tf32": 1e-2, "fp16": 5e-2, "bf16": 1e-1, "fp32": 1e-4}  # of 75 convolutions, all in a row
BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}  # of an activation


class Way(NamedTuple):
    """A way to compute the network."""

    name: str
    call: Callable  # (x, level) -> score
    inputs: tuple
    precision: str
    searches: bool = False  # whether cuDNN finds its plans by measurement


class RewrittenNorm(torch.nn.Module):
    """Our norm in plain torch, in the form that a compiler can do most with."""

    def __init__(self, norm):
        super().__init__()
        self.embed = norm.embed

    def forward(self, x, level, *, elu=False, residual=None):
        total = x if residual is None else x + residual
        y = rewritten_norm(total, *self.embed(level).chunk(3, dim=1), elu=elu)
        return y if residual is None else (y, total)


def without_kernels(model):
    """A copy of the network with plain-torch norms: what torch.compile is given."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConditionalInstanceNorm2dPlus):
                setattr(parent, name, RewrittenNorm(child))
    return model


def halved(model):
    """A copy of the network with convolutions in half precision; the tables of the norms stay float32."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.half()
    return model


def forward(result, setting):
    """Both resolutions; first the engine and the strongest baseline, last what is there for completeness."""
    sizes, ngf, batches = ((8, 16), 4, (2, 3)) if setting.quick else ((32, 64), 128, (100, 132))
    result.say(float32_convolutions_in_tf32=torch.backends.cudnn.allow_tf32)
    warnings.filterwarnings("ignore", module="torch.*")
    with torch.no_grad():
        for batch, *plan in (batches[0], fastest, rewritten), (batches[0], modules, engines), (batches[1], filling):
            for size in sizes:
                model = network(size, ngf, setting)
                result.say(**{f"gflop_per_image_at_{size}": work(model, setting.device).flop / 1e9})
                for ways in plan:
                    rows(result, setting, model, batch, ways)


def network(size, ngf, setting):
    """Untrained, the same in every call."""
    torch.manual_seed(0)
    return NCSN((3, size, size), ngf).to(setting.device).eval()


def rows(result, setting, model, batch, ways):
    """Rows of one batch in each of the ways to compute it."""
    x = torch.rand(batch, *model.shape, device=setting.device)
    level = torch.arange(batch, device=setting.device) % len(model.sigmas)
    expected = {dtype: exact(model, x.to(dtype), level) for dtype in (torch.float32, torch.float16)}
    found, what = work(model, setting.device), f"{model.shape[1]} px, batch {batch}"
    for way in ways(model, x, level, setting):
        planned(partial(row, result, setting, found, what, way, expected), way.searches)
        if isinstance(way.call, engine.Engine):
            result.say(**{f"{way.name}, {what}": str(way.call)})
        release(result, setting, what)


def fastest(model, x, level, setting):
    """The inference engine in the precision that `sample` takes; its x is float32."""
    yield engine_in("fp16", model, x, level)


def engines(model, x, level, setting):
    """The engine in its other precisions, and as fast as it would be if cuDNN searched."""
    for precision in ("bf16", "tf32", "fp32") if setting.cuda else ("bf16", "fp32"):
        yield engine_in(precision, model, x, level)
    yield engine_in("fp16", model, x, level, True)


def engine_in(precision, model, x, level, searches=False):
    """The way that is an engine."""
    name, call = f"engine, {precision}" + SEARCHED * searches, engine.gpu_form(model, precision, len(x))
    return Way(name, call, (x, level), precision, searches)


def rewritten(model, x, level, setting):
    """The strongest baseline: all our rewritings of the network, in plain torch, compiled as one graph."""
    last = x.to(torch.float16, memory_format=torch.channels_last), level
    name, call = "rewritten norm, eager, fp16 NHWC", without_kernels(halved(model))
    if setting.cuda and not setting.quick:
        name, call = "torch.compile, rewritten norm, fp16 NHWC", torch.compile(call, dynamic=False, fullgraph=True)
    yield Way(name, call, last, "fp16")
    yield Way(name + SEARCHED, call, last, "fp16", True)


def modules(model, x, level, setting):
    """The released network's computation, for which its code lets cuDNN search, and our module's."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    last = x.to(torch.float16, memory_format=torch.channels_last), level
    name = "released, eager, float32 NCHW" + SEARCHED
    yield Way(name, partial(official_forward, state), (x, level), "tf32", True)
    yield released_in_half(model, x, level)
    yield Way("langevin_ext, float32", model, (x, level), "tf32")
    yield Way("langevin_ext, fp16", halved(model), last, "fp16")


def released_in_half(model, x, level):
    """The released network's computation with half the bytes."""
    state = {name: _half(tensor) for name, tensor in model.state_dict().items()}
    last = x.to(torch.float16, memory_format=torch.channels_last), level
    return Way("released, eager, fp16 NHWC" + SEARCHED, partial(official_forward, state), last, "fp16", True)


def filling(model, x, level, setting):
    """In a batch that fills the GPU: the engine, and what it is compared with."""
    yield engine_in("fp16", model, x, level)
    yield released_in_half(model, x, level)


def _half(tensor):
    """A weight in half precision, channels-last where it is one of a convolution."""
    tensor = tensor.half() if tensor.is_floating_point() else tensor
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@torch.no_grad()
def row(result, setting, found, what, way, expected):
    """Rows of one way, called from Python and replayed as a graph, with its error."""
    (x, level), name, precision = way.inputs, way.name, way.precision
    try:
        error = relative_error(way.call(x, level), expected[x.dtype])
        runs = {"loop" if setting.cuda else "call": lambda: way.call(x, level)}
        runs |= replay(result, what, name, *runs.values()) if setting.cuda else {}
    except Exception as reason:  # loses its own row
        result.add(what=what, variant=name, **{kind_of(reason, name): sentence(reason)})
        return
    times = interleaved(runs, 3 if setting.quick else 12, 2, setting.device, flush=False, seconds=4.0)
    floor = floor_of(found, len(x), precision, setting.of("ceilings"))
    for how, time in times.items():
        said = {} if error <= LARGEST_ERROR[precision] else {"wrong": f"relative error {error:.1e}"}
        bound = {} if floor is None else {"bound_ms": 1e3 * floor, "share": floor / time.median}
        result.add(
            what=what,
            variant=name,
            how=how,
            median_ms=1e3 * time.median,
            iqr=1e3 * time.iqr,
            **bound,
            images_per_s=len(x) / time.median,
            relative_error=error,
            **said,
        )


def replay(result, what, name, call):
    """{"graph": the call as a graph}; where none holds it nothing, and a row that is wrong for an engine."""
    try:
        return {"graph": captured([call], torch.device("cuda"))}
    except RuntimeError as reason:
        torch.cuda.synchronize()
        column = kind_of(reason, name) if name.startswith("engine") else "why"
        result.add(what=what, variant=name, how="graph", **{column: f"not captured: {sentence(reason)}"})
        return {}


def kind_of(reason, name):
    """The column for what did not run: "wrong" of ours, "why" where memory ended, or of a baseline."""
    ours = name.startswith(("engine", "langevin_ext"))
    return "wrong" if ours and not isinstance(reason, torch.OutOfMemoryError) else "why"


def floor_of(found, batch, precision, rates):
    """Seconds that the pass needs at the measured ceilings; None if those were not measured."""
    rate = rates.get(f"{precision}_flop_per_s")
    return None if rate is None else found.floor(batch, BYTES[precision], rate, rates["copy_bytes_per_s"])


def exact(model, x, level):
    """The released computation in float32 without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        return official_forward(model.state_dict(), x.float().contiguous(), level)
    finally:
        torch.backends.cudnn.allow_tf32 = before


def relative_error(got, expected) -> float:
    """Relative to the largest expected value; infinite for what is not finite."""
    error = ((got.double() - expected.double()).abs().max() / expected.double().abs().max()).item()
    return error if math.isfinite(error) else math.inf
