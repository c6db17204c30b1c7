"""Every kernel once in each of its forms, on small shapes: what compute-sanitizer watches. Prints the number of calls.

python benchmarks/gpu_sanitize.py [cpu]
"""

import itertools
import sys

import torch

from langevin_ext import _native, ops, sample
from langevin_ext.models import NCSN
from langevin_ext.ops import norm_forms

PLACE = {"seed": 2**63 + 1, "step": 3, "first": 5}
FORMATS = (torch.contiguous_format, torch.channels_last)
HALVES = (torch.float32, torch.float16, torch.bfloat16)
IMAGE = (3, 3, 9, 7)  # odd, so that vectors have ends
FEATURES = ((2, 3, 7, 5), (2, 40, 8, 8), (1, 300, 4, 3), (2, 16, 33, 33))  # more channels than a tile, more chunks


def steps(device):
    """The updates in place."""
    for score_dtype, layout in itertools.product(HALVES, FORMATS):
        x = torch.randn(IMAGE, device=device).to(memory_format=layout)
        score = torch.randn(IMAGE, device=device).to(score_dtype, memory_format=layout)
        mask = torch.rand(IMAGE, device=device) > 0.5
        place, level = torch.tensor([-1, 7, 5], device=device), torch.zeros(300, dtype=torch.int64, device=device)
        table = torch.tensor([[0.1, 0.4, 3.0, 1.0]] * 3, dtype=torch.float64, device=device)
        for known in (None, mask, mask[0]):
            yield ops.langevin_step(x, score, 0.1, 0.4, mask=known, **PLACE)
            ops.advance_row(place, table, level)
            yield ops.langevin_table_step(x, score, table, place, mask=known)
    for layout, shape in itertools.product(FORMATS, ((2, 6, 9, 7), (1, 2, 4, 4))):
        u = torch.randn(shape, device=device).to(memory_format=layout)
        score = torch.randn(shape[0], shape[1] // 2, *shape[2:], device=device).to(memory_format=layout)
        yield ops.cld_step(u, score, (0.9, -0.3, 0.2, 0.4), (-0.1, 0.7), (0.3, -0.2, 0.5), **PLACE)
        yield ops.cld_step(u, None, (0.9, -0.3, 0.2, 0.4), (0.0, 0.0), (0.0, 0.0, 0.5), **PLACE)


def noisy(device):
    """Noise, perturbation, loss with its gradient, upsampling."""
    yield ops.philox_normal((3, 1001), device=device, **PLACE)
    yield ops.philox_words((3, 1001), device=device, **PLACE)
    sigma = torch.tensor([1.0, 0.3, 0.01], device=device)
    for dtype, layout in itertools.product(HALVES, FORMATS):
        x = torch.randn(IMAGE, device=device).to(dtype, memory_format=layout)
        yield ops.perturb(x, sigma, **PLACE)
        for power in (2.0, 0.5):
            score = x.clone().requires_grad_()
            ops.dsm_loss(score, sigma, anneal_power=power, **PLACE).sum().backward()
            yield score.grad
    yield ops.dsm_loss(torch.randn(2, 3, 40, 40, device=device), sigma[:2], **PLACE)  # several chunks
    for shape, layout in itertools.product(((2, 3, 8, 8), (1, 1, 1, 1), (2, 5, 7, 3)), FORMATS):
        x = torch.randn(shape, device=device).to(memory_format=layout)
        for level, dtype in itertools.product((0.0, 0.3), (None, *HALVES)):
            yield ops.upsample_bicubic2x(x, sigma=level, input_dtype=dtype, **PLACE)


def norms(device):
    """Instance norm++ and its gradients."""
    for shape, dtype, layout in itertools.product(FEATURES, HALVES, FORMATS):
        x, residual = (torch.randn(shape, device=device).to(dtype, memory_format=layout) for _ in range(2))
        level = torch.arange(shape[0], device=device) % 2
        for form, elu, with_sum, parts in (("official", True, True, 3), ("paper", False, False, 2)):
            inputs = [x.clone().requires_grad_(), torch.randn(2, parts * shape[1], device=device).requires_grad_()]
            other = residual.clone().requires_grad_() if with_sum else None
            out = ops.instance_norm_plus(*inputs, level, form=form, elu=elu, residual=other)
            total = sum(part.float().square().sum() for part in (out if with_sum else (out,)))
            total.backward()
            yield inputs[0].grad


def fused_norms(device):
    """Instance norm++ with a bias before it, alone and after a sum, and with the mean over 5x5 pixels behind it."""
    core, shapes = _native.core(torch.device(device)), (*FEATURES, (2, 6, 3, 4), (1, 8, 18, 70))
    for shape, dtype, layout in itertools.product(shapes, HALVES, FORMATS):
        x, other = (torch.randn(shape, device=device).to(dtype, memory_format=layout) for _ in range(2))
        table = torch.randn(1, 3 * shape[1], device=device), None, norm_forms.room_for_stats(x)
        scratch = table[0].new_empty(core.instance_norm_plus_scratch(x, False))
        one = table[0][0, : shape[1]]
        for residual, bias, pool in ((None, one, False), (other, one, False), (None, None, True), (other, one, True)):
            images = x, residual, None if residual is None else x, torch.empty_like(x)
            forms = [0] if pool else [0, *norm_forms.possible(core, x)]
            for blocks in forms:
                options = (False, 1e-5, not pool)
                norm_forms.launch(core, blocks, images, table, scratch, options, bias=bias, pool=pool)
                yield images[3]


def one_pass_norms(device):
    """Instance norm++ in its one-pass form, where the GPU has it: clusters of 1 to 8 blocks, ends of chunks."""
    core = _native.core(torch.device(device))
    for shape, dtype in itertools.product(((2, 8, 9, 7), (2, 48, 19, 20), (1, 512, 16, 16)), HALVES):
        x, residual = (torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last) for _ in range(2))
        weight = torch.randn(1, 3 * shape[1], device=device)
        for blocks, other in itertools.product(norm_forms.possible(core, x), (None, residual)):
            yield norm_forms.forward(core, x, other, weight, None, False, 1e-5, True, blocks)[0]


def run(device):
    """A short run of a small network, inpainting included."""
    model = NCSN((3, 8, 8), 4, sigmas=[1.0, 0.3]).to(device).eval()
    known = torch.rand(3, 8, 8)
    arguments = {"n_steps_each": 2, "progress": False}
    yield sample(model, n=3, batch_size=2, known=known, mask=known[:1] > 0.5, **arguments)


def main(device="cuda"):
    """Makes all calls, one after another."""
    calls = 0
    groups = steps, noisy, norms, fused_norms, one_pass_norms, run
    for tensor in itertools.chain.from_iterable(group(device) for group in groups):
        if device == "cuda":
            torch.cuda.synchronize()
        calls += tensor is not None
    print(f"{calls} calls")
    return calls


if __name__ == "__main__":
    main(*sys.argv[1:2])
