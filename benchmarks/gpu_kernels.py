"""Sections of the GPU report: the ceilings of the machine, and the elementwise kernels against them."""

import concurrent.futures
import warnings
from functools import partial

import torch
from gpu_common import sentence

from langevin_ext.benchmarking import kernels as cases
from langevin_ext.benchmarking.timing import input_sets, interleaved, rotated

COPY_BYTES = 2**32  # read, and as many written
MATRIX = 8192
PLANS = 4  # of cuDNN for one convolution, that are tried where it searches
SEARCHED = ", cudnn.benchmark"  # behind the name of a row for which it does


def ceilings(result, setting):
    """A large copy, and large matrix products of random numbers, in each number format."""
    size = (2**24 if setting.quick else COPY_BYTES) // 4
    source = torch.ones(size, device=setting.device)
    target = torch.empty_like(source)
    time = interleaved({"copy": lambda: target.copy_(source)}, 20, 3, setting.device, flush=False)["copy"]
    rate = 2 * source.nbytes / time.median
    result.say(copy_bytes_per_s=rate)
    result.add(what="copy", variant=f"{2 * source.nbytes / 1e9:.2g} GB", gb_per_s=rate / 1e9, **timed(time))
    n = 256 if setting.quick else MATRIX
    for name, dtype, tf32 in (
        ("fp16", torch.float16, False),
        ("bf16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        a, b = (torch.randn(n, n, device=setting.device).to(dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        repeats = 5 if name == "fp32" else 15
        time = interleaved({name: lambda a=a, b=b: a @ b}, repeats, 2, setting.device, flush=False)[name]
        rate = 2 * n**3 / time.median
        result.say(**{f"{name}_flop_per_s": rate})
        result.add(what=f"matrix product {n}", variant=name, tflop_per_s=rate / 1e12, **timed(time))


def timed(time) -> dict:
    """The columns of a measurement."""
    return {"how": time.how, "median_us": 1e6 * time.median, "iqr": 1e6 * time.iqr}


def kernels(result, setting):
    """Each elementwise op: large, where it must come near the copy, and as large as a batch of 100 images.

    torch.compile, which takes longest, has each op once.
    """
    big, small, large = ((4, 3, 8, 8), (2, 3, 4, 4), (2, 3, 8, 8)) if setting.quick else (
        (8192, 3, 64, 64), (100, 3, 32, 32), (100, 3, 64, 64)
    )  # fmt: skip
    half = {"score_dtype": torch.float16}
    plan = [
        ("Langevin step", cases.langevin_step, big, {}, 0.85),
        ("Langevin step, fp16 score", cases.langevin_step, big, half, 0.85),
        ("Langevin step", cases.langevin_step, small, {}, None),
        ("Langevin step", cases.langevin_step, large, {}, None),
        ("CLD step", cases.cld_step, big, {}, None),
        ("normals", cases.normals, big, {}, None),
        ("perturbation", cases.perturb, big, {}, None),
        ("loss and gradient", cases.dsm_loss, big, {}, None),
        ("bicubic upsampling", cases.upsample_bicubic2x, small, {}, None),
        ("bicubic upsampling, noise", cases.upsample_bicubic2x, small, {"sigma": 0.3}, None),
    ]
    builds = [build for _, build, *_ in plan]
    with torch.no_grad():
        for number, (what, build, shape, options, target) in enumerate(plan):
            make, first = partial(build, shape, setting.device, **options), builds.index(build) == number
            case_rows(result, setting, f"{what} {'x'.join(map(str, shape))}", make, target, first)


def case_rows(result, setting, what, make, target=None, compiles=True):
    """Rows of one case, which is checked first; what fails loses this case alone."""
    checked_rows(result, setting, what, make, target, compiles)
    release(result, setting, what)


def checked_rows(result, setting, what, make, target, compiles):
    """The rows, or one that says why there are none."""
    try:
        first = make(seed=0)
        first.check()
    except torch.OutOfMemoryError as error:
        result.add(what=what, variant="fused", why=sentence(error))
    except Exception as error:  # a wrong value, or a kernel that does not run
        result.add(what=what, variant="fused", wrong=sentence(error))
    else:
        try:
            timed_rows(result, setting, what, make, first, target, compiles)
        except Exception as error:  # nothing wrong was computed, but there are no times
            result.add(what=what, why=sentence(error))


def timed_rows(result, setting, what, make, first, target, compiles):
    """Plain torch, torch.compile and the fused op, gone through sets of inputs in turn."""
    count = 2 if setting.quick else input_sets(first.moved, setting.device)
    built = [first, *(make(seed=seed) for seed in range(1, count))]
    sets = {name: [case.calls[name] for case in built] for name in first.calls}
    if compiles and setting.cuda and not setting.quick:
        sets |= compiled(result, what, [case.plain for case in built])
    times = rotated(sets, 3 if setting.quick else 20, 2, setting.device, loops=first.loops, seconds=8.0)
    rate = setting.of("ceilings").get("copy_bytes_per_s")
    for name, time in times.items():
        bound = (
            {} if rate is None else {"bound_us": 1e6 * first.moved / rate, "share": first.moved / rate / time.median}
        )
        result.add(
            what=what,
            variant=name,
            **timed(time),
            gb_per_s=first.moved / time.median / 1e9,
            **bound,
            target=target if name == "fused" else None,
            faster=times["torch"].median / time.median,
        )


def compiled(result, what, plain) -> dict:
    """{"compiled": calls of the plain functions through torch.compile}; nothing, and a row of why, if that fails."""
    if plain[0] is None:
        return {}
    warnings.filterwarnings("ignore", module="torch.*")
    torch.compiler.reset()  # else the shapes of a function would add up to more than it may be compiled for
    function = torch.compile(plain[0][0], dynamic=False)
    calls = [lambda arguments=arguments: function(*arguments) for _, arguments in plain]
    try:
        calls[0]()
    except Exception as error:  # of many kinds, all of them torch's
        result.add(what=what, variant="compiled", why=sentence(error))
        return {}
    return {"compiled": calls}


def planned(call, searches=False):
    """call() with the plans that cuDNN's heuristics choose, as in `sample` and `train`, or with those that it finds by
    measurement.

    In a thread of its own: torch keeps the plans of each thread, whichever way they were found. Backward passes have
    one thread for all calls; there the calls differ in the order of memory or in determinism, and so do their plans.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.benchmark_limit
    cudnn.benchmark, cudnn.benchmark_limit = searches, PLANS
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(call).result()
    finally:
        cudnn.benchmark, cudnn.benchmark_limit = before


def release(result, setting, what):
    """Gives the memory of the last case back; a wrong row where a kernel of it faulted, after which nothing runs."""
    if not setting.cuda:
        return
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        result.add(what=what, wrong=sentence(error))
