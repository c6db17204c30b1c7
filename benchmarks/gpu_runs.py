"""Sections of the GPU report: whole sampling runs, and a training step."""

import math

import torch
import torch.nn.functional as F
from gpu_forward import floor_of
from gpu_kernels import release
from official import official_forward

from langevin_ext import plan, sample
from langevin_ext.benchmarking.network import work
from langevin_ext.benchmarking.timing import interleaved, wall_seconds
from langevin_ext.models import NCSN
from langevin_ext.samplers.job import PRECISIONS
from langevin_ext.training import Settings, Trainer

PAPER = {"LRS": 170, "HRS": 556, "LRS-2-up-HRS-9": 533}  # seconds for 100 images, arXiv:2006.11166, table 1
WHOLE = 100  # steps per level there and here
ROOM = 60.0  # seconds that all runs may take together
IMAGES = 100


def sampling(result, setting):
    """100 images by each of the three schemes, with each precision there is; short runs say so and are scaled."""
    sizes, ngf, n = ((8, 16), 4, 2) if setting.quick else ((32, 64), 128, IMAGES)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    models = [NCSN((3, size, size), ngf).to(setting.device).eval() for size in sizes]
    precisions = [name for name in PRECISIONS if name not in ("auto", "int16")]  # the second is for CPUs
    for scheme, seconds in PAPER.items():
        used = sizes if "up" in scheme else sizes[:1] if scheme == "LRS" else sizes[1:]
        what = f"{scheme}, {' and '.join(map(str, used))} px"
        for precision in precisions:
            room = ROOM / len(PAPER) / len(precisions)
            run(result, setting, models, what, (scheme, precision), n, room, seconds)
            release(setting)
        for variant in ("tf32", "bf16", "fp16", "captured step replayed"):
            if variant not in precisions:
                result.absent(what=what, variant=variant)


def run(result, setting, models, what, which, n, room, paper):
    """One row: steps are 100 a level, or fewer where that takes too long, and then the time is scaled."""
    scheme, precision = which
    arguments = {"batch_size": n, "denoise": False, "precision": precision}
    whole = plan(models, scheme, n, measure=True, **arguments)
    fits = int(WHOLE * room / max(whole.seconds or room, 1e-9))
    steps = 2 if setting.quick else WHOLE if fits >= WHOLE else max(2, min(fits, 20))
    if setting.cuda:
        torch.cuda.reset_peak_memory_stats()
    for count in (1, steps):  # the first run warms up

        def call(count=count):
            return sample(models, scheme, n, n_steps_each=count, progress=False, **arguments).sum().item()

        taken = wall_seconds(call, setting.device)
    scale = WHOLE / steps
    row = {} if steps == WHOLE else {"why": f"{steps} steps a level, times {scale:g}"}
    result.add(
        what=what,
        variant=precision,
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
    """A step of `train` in its precisions, and the released network's in plain torch with its images on the device."""
    size, ngf, batch = (8, 4, 2) if setting.quick else (32, 128, 128)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    model = NCSN((3, size, size), ngf).to(setting.device)
    found = work(model, setting.device)
    images = torch.rand(4 * batch, *model.shape)
    steps = {"released network, plain torch, float32": plain_step(model, images, batch, setting.device)}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        network = NCSN((3, size, size), ngf).to(setting.device)
        trainer = Trainer(network.train(), images, Settings(batch_size=batch, precision=precision))
        steps[f"langevin_ext, {precision}"] = trainer.update
    waiting = {name: lambda step=step: wall_seconds(step, setting.device) for name, step in steps.items()}
    times = interleaved(waiting, 3 if setting.quick else 12, 3, "cpu", seconds=30.0)  # wall time, the device waited for
    base = times["released network, plain torch, float32"].median
    x = {"fp32": torch.empty(batch, 1), "bf16": torch.empty(batch, 1, dtype=torch.float16)}
    for name, time in times.items():
        floor = training_floor(found, x["bf16" if "bf16" in name else "fp32"], setting.of("ceilings"))
        result.add(
            what=f"{size} px, batch {batch}",
            variant=name,
            median_ms=1e3 * time.median,
            iqr=1e3 * time.iqr,
            **({} if floor is None else {"bound_ms": 1e3 * floor, "share": floor / time.median}),
            faster=base / time.median,
            images_per_s=batch / time.median,
        )


def training_floor(found, x, rates):
    """Three times the products; norms read or write 5 times their values, forward and back, and sums 4 times."""
    three = found._replace(flop=3 * found.flop, normed=math.ceil(2.5 * found.normed), summed=2 * found.summed)
    return floor_of(three, x, rates)


def plain_step(model, images, batch, device):
    """The released network under denoising score matching and Adam, op for op; images are on the device already."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
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
