"""Each fused op against plain torch and against torch.compile of the same formula, beside a copy's bandwidth.

python benchmarks/kernels.py [--size 64] [--batch 16] [--no-compile]

Every implementation is checked against the others first, then all are timed in turn. `bound` is the time in which a
copy moves the bytes that the op must read and write at least; `share` is that time over the measured one. `ratio` is
the plain-torch time over the measured one.
"""

import argparse
import pathlib
import warnings

import torch
import torch.nn.functional as F
from timing import append_rows, interleaved, machine

from langevin_ext import backend_info, ops, reference

RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "kernels.jsonl"
DRAW = {"seed": 1, "step": 2}


def torch_step(x, score):
    """What a sampler in plain torch does: torch's own noise, then the update."""
    return x.add_(score, alpha=0.1).add_(torch.randn_like(x), alpha=0.4)


def torch_cld_step(u, score):
    """One merged step of SSCS in plain torch: torch's own noise, then both halves."""
    x, v = u.chunk(2, dim=1)
    z_x, z_v = torch.randn_like(x), torch.randn_like(v)
    moved = 0.9 * x - 0.3 * v - 0.1 * score + 0.3 * z_x
    v.mul_(0.4).add_(x, alpha=0.2).add_(score, alpha=0.7).add_(z_x, alpha=-0.2).add_(z_v, alpha=0.5)
    return x.copy_(moved)


def torch_perturb(x, sigma):
    return x + sigma[:, None, None, None] * torch.randn_like(x)


def torch_dsm(score, sigma, z):
    """Loss per sample and gradient, with the noise kept from the perturbation."""
    residual = sigma[:, None, None, None] * score + z
    return 0.5 * residual.square().flatten(1).sum(1), sigma[:, None, None, None] * residual


def torch_norm(x, gamma, alpha, beta):
    """The released network's CondInstanceNorm++ and ELU, op for op."""
    mean = x.mean(dim=(2, 3))
    shift = (mean - mean.mean(dim=1, keepdim=True)) / torch.sqrt(mean.var(dim=1, keepdim=True) + 1e-5)
    h = F.instance_norm(x, eps=1e-5) + (alpha * shift)[..., None, None]
    return F.elu(gamma[..., None, None] * h + beta[..., None, None])


def cases(args):
    """{row: (values moved at least, {implementation: call}, two calls that must agree)}."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(args.device)

    image = (args.batch, 3, args.size, args.size)
    x, score, sigma = random(*image), random(*image), random(args.batch).abs() + 0.1
    z = reference.philox_normal(image, device=args.device, stream=3, **DRAW)
    step = {"torch": lambda: torch_step(x, score), "fused": lambda: ops.langevin_step(x, score, 1e-9, 1e-9, **DRAW)}
    same_step = [
        lambda op=op: op(x.clone(), score, 0.1, 0.4, **DRAW) for op in (ops.langevin_step, reference.langevin_step)
    ]
    perturb = {"torch": lambda: torch_perturb(x, sigma), "fused": lambda: ops.perturb(x, sigma, **DRAW)}
    same_perturb = [lambda op=op: op(x, sigma, **DRAW) for op in (ops.perturb, reference.perturb)]
    dsm = {"torch": lambda: torch_dsm(score, sigma, z), "fused": lambda: fused_dsm(score, sigma)}
    rows = {
        "langevin_step": (3 * x.numel(), step, same_step),
        "cld_step": (5 * x.numel(), *cld_step(random(args.batch, 6, args.size, args.size), score)),
        "perturb": (2 * x.numel(), perturb, same_perturb),
        "dsm_loss+gradient": (2 * x.numel(), dsm, list(dsm.values())),
    }
    rows |= upsampling(random(args.batch, 3, args.size // 2, args.size // 2))
    features = random(args.batch, args.channels, args.size // 2, args.size // 2)
    weight = 1 + 0.1 * random(10, 3 * args.channels)
    level = torch.arange(args.batch, device=args.device) % 10
    parts = weight[level].split(args.channels, dim=1)
    for name, h in (("NCHW", features), ("NHWC", features.to(memory_format=torch.channels_last))):
        norm = {
            "torch": lambda h=h: torch_norm(h, *parts),
            "fused": lambda h=h: ops.instance_norm_plus(h, weight, level, elu=True),
        }
        rows[f"instance_norm_plus+ELU {name}"] = (2 * h.numel(), norm, list(norm.values()))
    return rows


def cld_step(u, score):
    """The calls of a merged step of SSCS, and two that agree."""
    step = (0.9, -0.3, 0.2, 0.4), (-0.1, 0.7), (0.3, -0.2, 0.5)
    same = [lambda op=op: op(u.clone(), score, *step, **DRAW) for op in (ops.cld_step, reference.cld_step)]
    return {"torch": lambda: torch_cld_step(u, score), "fused": lambda: ops.cld_step(u, score, *step, **DRAW)}, same


def torch_upsample(x, sigma):
    y = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    return y + sigma * torch.randn_like(y) if sigma else y


def upsampling(x):
    """Rows for images from half the size, without and with the noise; the values agree where there is none."""
    same = [lambda: torch_upsample(x, 0.0), lambda: ops.upsample_bicubic2x(x)]
    rows = {}
    for name, sigma in (("upsample_bicubic2x", 0.0), ("upsample_bicubic2x+noise", 0.3)):
        upsample = {
            "torch": lambda sigma=sigma: torch_upsample(x, sigma),
            "fused": lambda sigma=sigma: ops.upsample_bicubic2x(x, sigma=sigma, **DRAW),
        }
        rows[name] = (5 * x.numel(), upsample, same)
    return rows


def fused_dsm(score, sigma):
    """The op behind `ops.dsm_loss` as training calls it: loss and gradient in one pass, the noise made again."""
    return torch.ops.langevin_ext.dsm_loss(score, sigma, 2.0, True, DRAW["seed"], DRAW["step"], 0, 3)


def main():
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not backend_info()["native"]:
        raise SystemExit(f"kernels: the native core does not run: {backend_info()['native_reason']}")
    rows = []
    with torch.inference_mode():
        for name, (elements, fns, same) in cases(args).items():
            torch.testing.assert_close(same[0](), same[1](), rtol=1e-4, atol=1e-4)
            if not args.no_compile:
                fns = fns | {"compiled": compiled(fns["torch"])}
            fns = fns | {"copy": copy_of(elements, args)}
            times = interleaved(fns, args.repeats, args.warmup, args.device)
            rows += [row(args, name, implementation, elements, times) for implementation in fns]
    append_rows(args.output, rows)
    print_table(rows)


def compiled(fn):
    """torch.compile of a call; what it closes over are its inputs."""
    warnings.filterwarnings("ignore", module="torch.*")
    return torch.compile(fn, dynamic=False)


def copy_of(elements, args):
    """A copy that reads and writes as many float32 values in all as the op must."""
    source = torch.zeros(elements // 2, device=args.device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def row(args, op, implementation, elements, times):
    seconds, bound = times[implementation].median, times["copy"].median
    return {
        "op": op,
        "implementation": implementation,
        "dtype": "float32",
        "batch": args.batch,
        "size": args.size,
        "channels": args.channels,
        "median_us": 1e6 * seconds,
        "iqr_us": 1e6 * times[implementation].iqr,
        "gb_per_s": 4 * elements / seconds / 1e9,
        "share_of_copy": bound / seconds,
        "ratio_to_torch": times["torch"].median / seconds,
        **machine(args.device),
    }


def print_table(rows):
    print(f"{rows[0]['device']}, {rows[0]['threads']} threads, torch {rows[0]['torch']}, {rows[0]['commit']}")
    print(f"{'op':30} {'':10} {'median us':>10} {'IQR':>8} {'GB/s':>7} {'share':>6} {'ratio':>6}")
    for r in rows:
        print(
            f"{r['op']:30} {r['implementation']:10} {r['median_us']:10.1f} {r['iqr_us']:8.1f} {r['gb_per_s']:7.2f} "
            f"{r['share_of_copy']:6.2f} {r['ratio_to_torch']:6.2f}"
        )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="of the images; features are half as large")
    parser.add_argument("--channels", type=int, default=128, help="of the features")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's default")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--output", default=str(RESULTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
