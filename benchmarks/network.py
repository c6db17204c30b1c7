"""Forward time of our NCSN and its engines against the released network's eager computation (official.py).

Errors are relative to that computation in float64, the largest difference over the largest output. "convolutions alone"
are an engine's on inputs of the right shapes, with nothing between them.

python benchmarks/network.py --size 32 --batch 4 [--compile]
"""

import contextlib
import functools
import pathlib

import torch
import torch._inductor as inductor
from official import official_forward
from timing import append_rows, interleaved, network_parser, network_rows, print_network_rows

from langevin_ext import engine
from langevin_ext.engine.arena import Arena
from langevin_ext.engine.choice import bf16_runs
from langevin_ext.engine.convolutions import CpuForms
from langevin_ext.models import NCSN
from langevin_ext.models.refinenet import ConvMeanPool

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "network.jsonl"
TOLERANCES = {"float32": 1e-5, "int16": 2e-2, "bfloat16": 5e-2}
PRECISIONS = {"fp32": "float32", "int16": "int16", "bf16": "bfloat16"}


def main():
    """Checks equality, times, appends the rows and prints the table."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = NCSN((args.channels, args.size, args.size), args.ngf).to(args.device).eval()
    x = torch.rand(args.batch, *model.shape, device=args.device)
    level = torch.arange(args.batch, device=args.device) % len(model.sigmas)
    fns, errors = implementations(model, x, level, args.compile), {}
    with torch.inference_mode():
        state = {name: tensor.double() for name, tensor in model.state_dict().items()}
        expected = official_forward(state, x.double(), level)
        for (name, dtype), fn in fns.items():
            y = fn()
            if y is not None:
                errors[name, dtype] = ((y - expected).abs().max() / expected.abs().max()).item()
                if not errors[name, dtype] <= TOLERANCES[dtype]:
                    raise SystemExit(f"network: {name} {dtype} is off by {errors[name, dtype]:.1e}")
        times = interleaved(fns, args.repeats, args.warmup, args.device)
    rows = network_rows("network", args, times, errors, args.device)
    append_rows(args.output, rows)
    print_network_rows("forward", rows)


def parse():
    """The command line."""
    parser = network_parser(__doc__, RESULTS, repeats=15, warmup=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the official one (minutes)")
    return parser.parse_args()


def implementations(model, x, level, compiled):
    """{(name, dtype): forward without arguments}; None is the result of those that are not a forward pass."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    fns = {
        ("official eager", "float32"): lambda: official_forward(state, x, level),
        ("langevin_ext module", "float32"): lambda: model(x, level),
    }
    if why_not := engine.why_not(model):
        print(f"no engine: {why_not}")
    else:
        for precision, name in PRECISIONS.items():
            with contextlib.suppress(ValueError):  # not every CPU has the arithmetic
                fast = engine.build(model, precision=precision, batch=len(x))
                fns["engine", name] = functools.partial(fast, x, level)
                fns["convolutions alone", name] = convolutions_alone(model, x, level, precision)
    if compiled:
        forward = torch.compile(official_forward)
        fns["official torch.compile", "float32"] = lambda: forward(state, x, level)
        if x.device.type == "cpu":
            fns["compile with freezing", "float32"] = frozen(state, x, level, False)
            if bf16_runs():
                fns["compile with freezing", "bfloat16"] = frozen(state, x, level, True)
    return fns


def convolutions_alone(model, x, level, precision):
    """The convolutions of an engine, one after the other, with the pooling of those that are pooled."""
    shapes, pools = [], [module for module in model.modules() if isinstance(module, ConvMeanPool)]
    inner = {conv for module in pools for conv in module.modules() if conv is not module}
    handles = [
        module.register_forward_hook(lambda module, args, y: shapes.append((module, args[0].shape)))
        for module in model.modules()
        if isinstance(module, (torch.nn.Conv2d, ConvMeanPool)) and module not in inner
    ]
    with torch.no_grad():
        model(x, level)
    for handle in handles:
        handle.remove()
    forms, outer = CpuForms(precision), (model.begin_conv, model.end_conv)
    arena, work = Arena(forms.dtype), []
    with torch.inference_mode():
        for module, shape in shapes:
            kind = forms.outer if module in outer else forms.pooled if module in pools else forms.convolution
            dtype = torch.float32 if module in outer else forms.dtype
            image = torch.rand(shape).to(dtype).contiguous(memory_format=torch.channels_last)
            work.append((kind(module, (len(x), *shape[2:])), image))

    def run():
        arena.threads = torch.get_num_threads()
        for conv, image in work:
            arena.give(conv(image, arena))

    return run


class Frozen(torch.nn.Module):
    """The official computation as a module, whose weights torch.compile can take for constants."""

    def __init__(self, state):
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in state}
        for name, tensor in state.items():
            self.register_parameter(self.names[name], torch.nn.Parameter(tensor, requires_grad=False))

    def forward(self, x, level):
        return official_forward({name: getattr(self, own) for name, own in self.names.items()}, x, level)


def frozen(state, x, level, bfloat16):
    """torch.compile of it with frozen weights, under bfloat16 autocast or in float32."""
    module = Frozen(state).eval()
    forward = torch.compile(module)

    def run():
        with inductor.config.patch(freezing=True), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return forward(x, level).float()

    return run


if __name__ == "__main__":
    main()
