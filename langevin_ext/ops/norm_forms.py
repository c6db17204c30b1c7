"""The forms of instance norm++ on a GPU, and which of them serves: chosen by measurement, or asked for.

    two-kernel  one kernel sums, the next normalises: 3 passes over the features; any GPU, any layout
    one-pass    a cluster of 1, 2, 4 or 8 blocks keeps a sample in its shared memory: 2 passes; GPUs of compute
                capability 9.0 and newer, channels-last features that fit

Both add in one order and give the same bits. A form is a number here: the blocks of a cluster, 0 for two kernels.
Norms that pool are always two kernels: a block of a cluster would sum the rows of its slab and 4 of its neighbours',
for those of its slab alone, and that costs more than the pass that it saves, counted in instructions.
"""

import statistics
from functools import partial

import torch

from .. import _native, captures

NAME = "instance_norm_plus"
KERNELS = ("auto", "two-kernel", "one-pass")
CLUSTERS = (1, 2, 4, 8)
STORED = (torch.float32, torch.bfloat16, torch.float16)
ALIGNMENT = 16  # bytes
LAUNCHES, REPEATS = 10, 7

_chosen: dict[tuple, int] = {}
_measured: dict[tuple, list[int]] = {}  # batches of (0, C, H, W)


def like(tensor, x):
    """`tensor` in the memory format of a dense x."""
    if tensor is None:
        return None
    return tensor.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last)


def room_for_stats(x):
    """Room for mu, r, m and q of each sample; see csrc/instance_norm_plus.h."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((x.shape[0], 2 * x.shape[1] + 2), dtype=dtype)


def launch(core, blocks, images, table, scratch, options, threads=1, *, bias=None, pool=False):
    """The native core's kernels in the form that `blocks` names.

    Args:
        images: x, residual, where the sum goes, y; the sum may go where x is, an element is read before.
        table: weight, level, statistics.
        scratch: for two kernels.
        options: paper, eps, elu.
        bias: (C,) in weight's dtype or None: x + bias is normalised, or x + residual + bias, which the sum is then.
        pool: y is the mean over 5x5 pixels of what was normalised, with zeros around the image; without elu, and in
            two kernels.

    Raises:
        ValueError: pool, in a cluster.
    """
    if blocks and pool:
        raise ValueError(f"{NAME}: blocks must be 0 with pool, which takes two kernels, got {blocks}")
    if blocks:
        core.instance_norm_plus_cluster(*images, *table, *options, bias, blocks)
    else:
        core.instance_norm_plus(*images, *table, scratch, *options, bias, pool, threads)


def forward(core, x, residual, weight, level, paper, eps, elu, blocks):
    """(y, x + residual or None, statistics) of a dense x by the native core, in the form that `blocks` names."""
    y, total, stats = torch.empty_like(x), None if residual is None else torch.empty_like(x), room_for_stats(x)
    images, table = (x, residual, total, y), (weight.contiguous(), None if level is None else level.contiguous(), stats)
    scratch = None if blocks else stats.new_empty(core.instance_norm_plus_scratch(x, False))
    launch(core, blocks, images, table, scratch, (paper, eps, elu), torch.get_num_threads())
    return y, total, stats


def blocks_for(core, x, residual, kernel):
    """The form that `kernel` asks for, for a dense x and a residual that lies as x does."""
    if kernel == "two-kernel":
        return 0
    reason = "" if all(t is None or t.data_ptr() % ALIGNMENT == 0 for t in (x, residual)) else "x is not aligned"
    if kernel == "auto":
        return 0 if reason else chosen(x, residual is not None)
    blocks, *_, why_not = core.instance_norm_plus_cluster_plan(x, _limit(core, x), 0)
    if reason or not blocks:
        raise ValueError(f"{NAME}: kernel must be 'auto' or 'two-kernel' here, got 'one-pass': {reason or why_not}")
    return blocks


def _limit(core, x):
    limit = core.instance_norm_plus_cluster_limit(x)
    if not limit:
        raise ValueError(
            f"{NAME}: kernel must be 'auto' or 'two-kernel' here, got 'one-pass', which needs a GPU of compute "
            "capability 9.0 or newer and a core that was built for it"
        )
    return limit


def chosen(x, with_residual, pool=False):
    """The form that serves such features."""
    return _chosen.get(_key(x, with_residual), 0) if _chosen and not pool else 0


def name_of(blocks):
    """A form in words."""
    return f"one-pass, {blocks} block{'s' * (blocks > 1)}" if blocks else "two-kernel"


def _key(x, with_residual):
    return x.device, tuple(x.shape), x.dtype, x.is_contiguous(memory_format=torch.channels_last), with_residual


def choose_norm(shape, dtype=torch.float16, device="cuda"):
    """Times the forms of instance norm++ on channels-last features of this shape, and keeps the fastest for them.

    From then on `instance_norm_plus` with kernel="auto" runs that form for features of this shape, dtype and device in
    this process; for others it runs two kernels. The results are the same, bit for bit. To be called before a graph is
    captured. On the CPU there is one form, and nothing happens. It takes as long as about 90 launches of each form with
    and without a residual, and as a few waits for the device.

    Args:
        shape: (samples, C, H, W) of the features.
        dtype: float16, bfloat16 or float32.
        device: where.

    Returns:
        dict with the median seconds of each form without and with a residual: ("two-kernel" or "one-pass, k blocks",
        with residual) -> seconds; empty where there is nothing to choose.

    Raises:
        TypeError, ValueError: dtype or shape do not fit.
        RuntimeError: a graph is being captured.
    """
    if len(shape) != 4 or min(shape) < 1:
        raise ValueError(f"choose_norm: shape must be (samples, C, H, W), each at least 1, got {tuple(shape)}")
    if dtype not in STORED:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in STORED)
        raise TypeError(f"choose_norm: dtype must be {allowed}, got {str(dtype).removeprefix('torch.')}")
    device = torch.empty(0, device=device).device  # with its index
    if captures.under_way(device):
        raise RuntimeError("choose_norm: must be called before a graph is captured, and one is being captured")
    x = torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=torch.channels_last)
    core, times = _native.core_for(x), {}
    forms = [0, *possible(core, x)]
    if len(forms) == 1:
        return times
    y, scratch = torch.empty_like(x), x.new_empty(core.instance_norm_plus_scratch(x, False), dtype=torch.float32)
    table = torch.ones(1, 3 * x.shape[1], device=device), None, room_for_stats(x)
    for residual in (None, torch.zeros_like(x.fill_(1))):
        images = x, residual, None if residual is None else x, y  # the sum goes where x is, as in an engine
        calls = [partial(launch, core, form, images, table, scratch, (False, 1e-5, True)) for form in forms]
        seconds = _median_seconds(calls, x.device)
        _chosen[_key(x, residual is not None)] = forms[seconds.index(min(seconds))]
        for form, median in zip(forms, seconds, strict=True):
            times[name_of(form), residual is not None] = median
    _measured.setdefault((device, (0, *shape[1:]), dtype), []).append(shape[0])
    return times


def settle(shape, dtype, device) -> dict[bool, int]:
    """`choose_norm`, unless half to twice as many samples were measured before: then what serves those serves these.

    So batches of all sizes up to B cost at most log2(B) + 1 measurements.

    Returns:
        {with residual: form}; empty where there is nothing to choose.
    """
    device = torch.empty(0, device=device).device

    def key(batch, with_residual):
        return device, (batch, *shape[1:]), dtype, True, with_residual

    measured = [b for b in _measured.get(key(0, False)[:3], []) if key(b, True) in _chosen]
    near = [b for b in measured if shape[0] <= 2 * b and b <= 2 * shape[0]]
    if near:
        nearest = min(near, key=lambda b: abs(b - shape[0]))
        _chosen.update({key(shape[0], summed): _chosen[key(nearest, summed)] for summed in (False, True)})
    elif not choose_norm(shape, dtype, device):
        return {}
    return {summed: _chosen[key(shape[0], summed)] for summed in (False, True)}


def possible(core, x):
    """The clusters that x fits and the GPU can hold."""
    if core is None or not core.instance_norm_plus_cluster_limit(x):
        return []
    limit = core.instance_norm_plus_cluster_limit(x)
    return [
        blocks
        for blocks in CLUSTERS
        if core.instance_norm_plus_cluster_plan(x, limit, blocks)[0]
        and core.instance_norm_plus_clusters_at_once(x, blocks)
    ]


def _median_seconds(calls, device):
    """Of each call, from graphs of several launches replayed in turn: what the CPU needs to launch does not count."""
    with torch.cuda.device(device):
        graphs = [_graph_of(call, device) for call in calls]
        times = [[] for _ in calls]
        for repeat in range(REPEATS + 1):
            for graph, taken in zip(graphs, times, strict=True):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                graph.replay()
                end.record()
                end.synchronize()
                if repeat:  # the first replay uploads the graph
                    taken.append(begin.elapsed_time(end) * 1e-3 / LAUNCHES)
    return [statistics.median(taken) for taken in times]


def _graph_of(call, device):
    call()  # loads the kernel, which a capture must not
    return captures.captured(lambda: [call() for _ in range(LAUNCHES)], device)
