"""Sections of the GPU report: whole sampling runs, and a training step."""

import contextlib
import math

import torch
import torch.nn.functional as F
from gpu_common import sentence, watched
from gpu_forward import floor_of, kind_of
from gpu_kernels import SEARCHED, planned, release
from official import official_forward

from langevin_ext import plan, sample
from langevin_ext.benchmarking.network import work
from langevin_ext.benchmarking.timing import interleaved, wall_seconds
from langevin_ext.engine import ON_CPU, ON_GPU
from langevin_ext.engine.choice import bf16_runs
from langevin_ext.models import NCSN
from langevin_ext.training import Settings, Trainer
from langevin_ext.training.loop import deterministic

PAPER = {"LRS": 170, "HRS": 556, "LRS-2-up-HRS-9": 533}  # seconds for 100 images, arXiv:2006.11166, table 1
ALONE, MIXED = ("LRS", "HRS"), ("LRS-2-up-HRS-9",)  # of one resolution and of both
WHOLE = 100  # steps per level there and here
ROOM = {"whole": 40.0, "part": 2.0, "filled": 4.0}  # seconds that a run may take
IMAGES = 100
TRAINED = (  # name, precision of `train` or None, whether gradients are deterministic
    ("released network, plain torch, float32" + SEARCHED, None, False),
    ("langevin_ext, fp32", "fp32", True),
    ("langevin_ext, bf16", "bf16", True),
    ("langevin_ext, fp32, without deterministic gradients", "fp32", False),
)


def sampling(result, setting):
    """100 images by each of the three schemes, in each precision, with the step captured and without; and as many as
    fill the GPU. Short runs say so and are scaled. First what the product takes and the loop beside it."""
    sizes, ngf, n = ((8, 16), 4, 2) if setting.quick else ((32, 64), 128, IMAGES)
    torch.manual_seed(0)
    models = [NCSN((3, size, size), ngf).to(setting.device).eval() for size in sizes]
    fastest = "fp16" if setting.cuda else "fp32"
    left_out = ("auto", "int16", fastest) if setting.cuda or bf16_runs() else ("auto", "int16", "bf16", fastest)
    others = [name for name in (ON_GPU if setting.cuda else ON_CPU) if name not in left_out]
    captured, loop = (fastest, True, n, ROOM["whole"]), (fastest, False, n, ROOM["part"])
    rest = [(fastest, True, None, ROOM["filled"]), *((precision, True, n, ROOM["part"]) for precision in others)]
    order = [(scheme, way) for schemes in (ALONE, MIXED) for way in (captured, loop) for scheme in schemes]
    for scheme, way in [*order, *((scheme, way) for way in rest for scheme in PAPER)]:
        used = sizes if scheme in MIXED else sizes[:1] if scheme == "LRS" else sizes[1:]
        what = f"{scheme}, {' and '.join(map(str, used))} px"
        try:
            run(result, setting, models, what, (scheme, *way), PAPER[scheme])
        except torch.OutOfMemoryError as reason:
            result.add(what=what, variant=way[0], why=sentence(reason))
        except Exception as reason:  # one way loses its own row
            result.add(what=what, variant=way[0], wrong=sentence(reason))
        release(result, setting, what)


def run(result, setting, models, what, which, paper):
    """One row: steps are 100 a level, or fewer where that takes too long, and then the time is scaled."""
    scheme, precision, graph, n, room = which
    arguments = {"batch_size": n, "denoise": False, "precision": precision, "graph": graph}
    n = n or plan(models, scheme, 10**6, **arguments).batch_size
    whole = plan(models, scheme, n, measure=True, **arguments)
    fits = int(WHOLE * room / max(whole.seconds or room, 1e-9))
    steps = 2 if setting.quick else WHOLE if fits >= WHOLE else max(2, min(fits, 20))
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats()
    info = {}
    for count in (1, steps):  # the first run warms up, and captures

        def call(count=count):
            x, said = sample(models, scheme, n, n_steps_each=count, progress=False, return_info=True, **arguments)
            info.update(said)
            return x.sum().item()

        with watched(setting.cuda and count == WHOLE) as row:
            taken = wall_seconds(call, setting.device)
    scale = WHOLE / steps
    row |= {} if steps == WHOLE else {"why": f"{steps} steps a level, times {scale:g}"}
    result.add(
        what=what,
        variant=f"{info['precision']}, batch {whole.batch_size}",
        how="captured step" if graph and setting.cuda else "step from a table" if graph else "loop",
        evaluations=sum(whole.evaluations.values()),
        s_per_run=scale * taken,
        s_for_100_images=scale * taken * IMAGES / n,
        steps_times_one=None if whole.seconds is None else whole.seconds,
        run_over_that=None if not whole.seconds else scale * taken / whole.seconds,
        the_papers_s=paper,
        images_per_s=n / (scale * taken),
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if setting.cuda else None,
        **row,
    )


def training(result, setting):
    """A step of `train` in its precisions, and the released network's in plain torch with its images on the device.

    Gradients are deterministic as `train` has them, but in the row that says otherwise.
    """
    size, ngf, batch = (8, 4, 2) if setting.quick else (32, 128, 128)
    device, images = torch.device(setting.device), torch.rand(4 * batch, 3, size, size)
    found, base = work(network(size, ngf, device), device), None
    for name, precision, fixed in TRAINED:

        def seconds(precision=precision, fixed=fixed):
            model = network(size, ngf, device)
            with deterministic(device) if fixed else contextlib.nullcontext():
                step = our_step(model, images, batch, precision) if precision else plain_step(model, images, batch)
                timed = {"": lambda: wall_seconds(step, device)}  # as a clock shows it, the device waited for
                return interleaved(timed, 3 if setting.quick else 12, 3, "cpu", seconds=5.0)[""]

        what = f"{size} px, batch {batch}"
        try:
            time = planned(seconds, searches=not precision)
            base = base or (time.median if not precision else None)
            training_row(result, setting, what, name, found, batch, time, base)
        except Exception as reason:  # one way loses its own row
            result.add(what=what, variant=name, **{kind_of(reason, name): sentence(reason)})
        release(result, setting, what)


def training_row(result, setting, what, name, found, batch, time, base):
    """The row of one way; `base`: seconds of the released network, or None."""
    floor = training_floor(found, batch, "bf16" if "bf16" in name else "tf32", setting.of("ceilings"))
    result.add(
        what=what,
        variant=name,
        median_ms=1e3 * time.median,
        iqr=1e3 * time.iqr,
        **({} if floor is None else {"bound_ms": 1e3 * floor, "share": floor / time.median}),
        **({} if base is None else {"faster": base / time.median}),
        images_per_s=batch / time.median,
    )


def training_floor(found, batch, precision, rates):
    """Three times the products; norms read or write 5 times their values, forward and back, and sums 4 times."""
    three = found._replace(flop=3 * found.flop, normed=math.ceil(2.5 * found.normed), summed=2 * found.summed)
    return floor_of(three, batch, precision, rates)


def network(size, ngf, device):
    """Untrained, the same in every call."""
    torch.manual_seed(0)
    return NCSN((3, size, size), ngf).to(device)


def our_step(model, images, batch, precision):
    """The step of `train`."""
    return Trainer(model.train(), images, Settings(batch_size=batch, precision=precision)).update


def plain_step(model, images, batch):
    """The released network under denoising score matching and Adam, op for op; images are on the device already."""
    contiguous, device = {"memory_format": torch.contiguous_format}, model.sigmas.device  # ours keeps channels last
    state = {name: tensor.detach().clone(**contiguous) for name, tensor in model.state_dict().items()}
    leaves = [tensor.requires_grad_() for tensor in state.values() if tensor.is_floating_point()]
    optimizer = torch.optim.Adam(leaves, 1e-3)
    x, sigmas = images[:batch].to(device), model.sigmas

    def step():
        level = torch.randint(len(sigmas), (batch,), device=device)
        sigma = sigmas[level][:, None, None, None]
        noisy = x + torch.randn_like(x) * sigma
        target = -1 / sigma**2 * (noisy - x)
        score = official_forward(state, noisy, level)
        loss = (0.5 * F.mse_loss(score, target, reduction="none").flatten(1).sum(1) * sigma.flatten() ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
