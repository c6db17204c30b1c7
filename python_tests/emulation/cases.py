"""The cases of `checks`: ALL for the kernels as they are, FEW for each mutant."""

import itertools

import torch

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
LAYOUTS = ["contiguous", "channels_last", "unaligned"]
SHAPES = [(1, 1, 1, 1), (3, 1, 1, 5), (2, 3, 8, 8), (3, 8, 10, 10), (1, 17, 15, 20), (2, 33, 1, 5), (3, 33, 8, 8)]
ONE_BEYOND = (3, 1, 25, 41)  # one element more than a block of threads holds


def product(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


ALL = {
    "noise": [
        *product(shape=[*SHAPES, ONE_BEYOND, (5, 1), (2, 1023), (3, 2, 2)]),
        {"shape": (3, 6), "first": 0},
    ],
    "langevin_step": [
        *product(shape=[*SHAPES, ONE_BEYOND, (5, 4)], dtype=[F32, BF16, F16]),
        *product(
            shape=[(3, 3, 8, 8), (2, 3, 5, 7)],
            dtype=[F32, BF16, F16],
            x_layout=LAYOUTS,
            score_layout=LAYOUTS,
            mask=[None, "image", "batch"],
        ),
        {"shape": (3, 2, 513), "mask": "batch"},
    ],
    "langevin_table_step": [
        *product(shape=[*SHAPES, ONE_BEYOND, (5, 4)], row=[0, 2]),
        *product(
            shape=[(3, 3, 8, 8)], dtype=[F32, BF16, F16], x_layout=LAYOUTS, score_layout=LAYOUTS, mask=[None, "image"]
        ),
        *product(shape=[(2, 3, 5, 7), (3, 3, 8, 8)], row=[-1, 3], mask=[None, "batch"]),
    ],
    "advance_row": product(samples=[0, 1, 5, 256, 257, 700], row=[-2, -1, 0, 1, 2]),
    "cld_step": [
        *product(shape=[*SHAPES, ONE_BEYOND, (5, 4)], score_layout=["contiguous", None]),
        *product(
            shape=[(3, 3, 8, 8), (2, 3, 5, 7)],
            layout=LAYOUTS,
            score_layout=[*LAYOUTS, None],
            noise=[(0.3, -0.2, 0.5), (0.0, 0.0, 0.5)],
        ),
        *product(shape=[(3, 3, 8, 8)], noise=[(0.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.3, 0.0)]),
    ],
    "perturb": product(shape=[*SHAPES, ONE_BEYOND], dtype=[F32, BF16, F16], layout=LAYOUTS),
    "dsm_loss": [
        *product(shape=[*SHAPES, ONE_BEYOND], dtype=[F32, BF16, F16], layout=LAYOUTS),
        *product(shape=SHAPES, dtype=[F32, BF16], anneal_power=[0.0, 1.0]),
        {"shape": (5, 6)},
    ],
    "instance_norm_plus": [
        *product(shape=[*SHAPES, ONE_BEYOND], layout=LAYOUTS),
        *product(shape=[(3, 8, 10, 10), (2, 33, 1, 5), (1, 17, 15, 20)], dtype=[BF16, F16], layout=LAYOUTS),
        *product(
            shape=[(3, 8, 8, 8)],
            layout=LAYOUTS[:2],
            form=["official", "paper"],
            elu=[False, True],
            residual=[None, "contiguous", "channels_last"],
        ),
        *product(
            shape=[(2, 3, 5, 5)],
            layout=LAYOUTS[:2],
            form=["official", "paper"],
            elu=[True],
            residual=[None, "contiguous"],
            levels=[None],
        ),
        *product(shape=[(3, 8, 10, 10)], layout=LAYOUTS[:2], beta=[False], scale=[1.0, 30.0]),
        # Several chunks of pixels to a channel.
        *product(shape=[(2, 3, 45, 45), (1, 33, 30, 30)], dtype=[F32, BF16], layout=LAYOUTS[:2]),
        *product(
            shape=[(3, 8, 8, 8), (2, 3, 5, 7), (2, 1, 3, 3)],
            layout=LAYOUTS,
            form=["official", "paper"],
            residual=[None, "channels_last"],
            bias=[True],
        ),
        *product(
            shape=[(1, 33, 30, 30)], dtype=[F32, BF16, F16], layout=LAYOUTS, residual=[None, "contiguous"], bias=[True]
        ),
        {"shape": (3, 8, 10, 10), "bias": True, "elu": True, "levels": None},
        *product(shape=[*SHAPES, ONE_BEYOND], layout=LAYOUTS, pool=[True]),
        *product(
            shape=[(3, 8, 8, 8), (2, 6, 3, 4), (1, 12, 15, 20), (2, 5, 5, 5)],
            layout=LAYOUTS,
            dtype=[F32, BF16, F16],
            residual=[None, "contiguous"],
            pool=[True],
            bias=[True],
        ),
        # Images of several strips and of several blocks across, in several chunks; more channels than a block has.
        *product(shape=[(2, 6, 45, 37), (1, 34, 33, 70)], layout=LAYOUTS[:2], dtype=[F32, F16], pool=[True]),
        *product(shape=[(1, 260, 4, 5), (1, 520, 2, 3)], layout=LAYOUTS[:2], dtype=[F32, BF16], pool=[True]),
        *product(shape=[(3, 8, 8, 8)], layout=LAYOUTS[:2], form=["paper"], beta=[False], levels=[None], pool=[True]),
    ],
    # The norms of the network at 32 and 64 pixels; then ends of chunks, blocks without work, threads without columns.
    "instance_norm_plus_cluster": [
        *product(
            shape=[(1, 128, 32, 32), (1, 256, 16, 16), (1, 128, 16, 16), (1, 128, 64, 64), (1, 256, 32, 32)],
            layout=["channels_last"],
            dtype=[F16],
            elu=[True],
            residual=[None, "channels_last"],
        ),
        *product(shape=[(1, 128, 32, 32), (2, 256, 16, 16)], layout=["channels_last"], dtype=[F32], elu=[True]),
        *product(
            shape=[(3, 256, 16, 16)],
            layout=["channels_last"],
            dtype=[BF16],
            elu=[False, True],
            form=["official", "paper"],
            residual=[None, "contiguous"],
            blocks=[1, 2, 4],
        ),
        *product(shape=[(1, 128, 32, 32)], layout=["channels_last"], dtype=[F16], blocks=[2, 4, 8]),
        *product(shape=[(3, 8, 10, 10), (2, 4, 1, 7), (1, 4, 65, 64)], layout=["channels_last"]),
        *product(shape=[(1, 512, 12, 12)], layout=["channels_last"], dtype=[BF16], blocks=[1, 2], elu=[True]),
        *product(shape=[(2, 48, 19, 20), (1, 96, 21, 17)], layout=["channels_last"], dtype=[F16, F32], blocks=[1, 2]),
        *product(shape=[(2, 48, 20, 20)], layout=["channels_last"], beta=[False], levels=[None, 2], scale=[1.0, 30.0]),
        *product(
            shape=[(3, 8, 10, 10), (2, 48, 19, 20), (1, 128, 32, 32)],
            layout=["channels_last"],
            dtype=[F32, BF16, F16],
            residual=[None, "contiguous"],
            bias=[True],
        ),
        *product(
            shape=[(3, 256, 16, 16)], layout=["channels_last"], dtype=[F16], bias=[True], elu=[True], blocks=[1, 2, 4]
        ),
    ],
    "upsample_bicubic2x": [
        *product(shape=[*SHAPES, (3, 1, 16, 16), (3, 2, 7, 1), (3, 1, 17, 16)], layout=LAYOUTS, sigma=[0.0, 0.3]),
        *product(shape=[(3, 1, 5, 7), (3, 3, 6, 9)], layout=LAYOUTS, sigma=[0.3], input_dtype=[F32, BF16, F16]),
        {"shape": (3, 3, 5, 7), "a": -0.5, "input_dtype": F32},
        {"shape": (2, 1, 1, 257)},
    ],
}

FEW = {
    "langevin_table_step": [
        {"shape": (3, 3, 8, 8)},
        {"shape": (3, 3, 5, 7), "row": 2},
        {"shape": (2, 3, 5, 7), "row": 3},
    ],
    "advance_row": [{"samples": 700, "row": 1}, {"samples": 700, "row": 2}, {"samples": 5, "row": -1}],
    "noise": [{"shape": (3, 6)}, {"shape": (3, 1030)}],
    "langevin_step": [
        {"shape": ONE_BEYOND},
        {"shape": (3, 3, 8, 8)},
        {"shape": (3, 3, 8, 8), "score_layout": "unaligned"},
        {"shape": (3, 3, 5, 7), "x_layout": "channels_last"},
        {"shape": (3, 3, 8, 8), "mask": "batch"},
        {"shape": (3, 3, 8, 8), "mask": "image", "score_layout": "channels_last", "dtype": BF16},
    ],
    "cld_step": [
        {"shape": ONE_BEYOND},
        {"shape": (3, 3, 8, 8)},
        {"shape": (3, 3, 8, 8), "score_layout": None, "noise": (0.0, 0.0, 0.5)},
        {"shape": (3, 3, 8, 8), "layout": "unaligned"},
        {"shape": (3, 3, 8, 8), "score_layout": "unaligned"},
        {"shape": (3, 3, 5, 7), "layout": "channels_last"},
        {"shape": (3, 3, 8, 8), "score_layout": "channels_last", "noise": (0.0, 0.3, 0.0)},
    ],
    "perturb": [
        {"shape": ONE_BEYOND},
        {"shape": (3, 3, 8, 8)},
        {"shape": (3, 3, 5, 7), "layout": "channels_last"},
        {"shape": (3, 3, 8, 8), "layout": "unaligned", "dtype": F16},
    ],
    "dsm_loss": [
        {"shape": ONE_BEYOND},
        {"shape": (5, 17, 15, 20)},
        {"shape": (3, 3, 5, 7), "anneal_power": 1.0},
        {"shape": (3, 3, 5, 7), "layout": "channels_last"},
        {"shape": (3, 3, 8, 8), "layout": "unaligned", "dtype": F16},
    ],
    "instance_norm_plus": [
        {"shape": (3, 8, 10, 10)},
        {"shape": (3, 8, 10, 10), "layout": "channels_last", "elu": True},
        {"shape": (2, 33, 5, 5), "residual": "contiguous"},
        {"shape": (2, 3, 15, 20), "form": "paper"},
        {"shape": (2, 33, 5, 5), "layout": "channels_last"},
        {"shape": (1, 3, 45, 45)},
        {"shape": (1, 33, 30, 30), "layout": "channels_last"},
        {"shape": (3, 8, 8, 8), "layout": "unaligned"},
        {"shape": (3, 4, 9, 7), "bias": True, "pool": True},
        {"shape": (3, 8, 10, 10), "layout": "channels_last", "residual": "contiguous", "bias": True},
        {"shape": (3, 8, 18, 21), "layout": "channels_last", "pool": True},
        {"shape": (2, 8, 34, 6), "layout": "channels_last", "pool": True, "dtype": F16, "residual": "contiguous"},
        {"shape": (1, 260, 3, 12), "layout": "channels_last", "pool": True, "dtype": BF16},
        {"shape": (1, 5, 6, 9), "layout": "channels_last", "pool": True, "dtype": F16},
        {"shape": (1, 4, 3, 4), "pool": True, "dtype": F16},
    ],
    "instance_norm_plus_cluster": [
        {"shape": (3, 8, 10, 10), "layout": "channels_last", "elu": True},
        {"shape": (1, 512, 12, 12), "layout": "channels_last", "dtype": BF16, "blocks": 1},
        {"shape": (2, 512, 12, 12), "layout": "channels_last", "dtype": F16, "blocks": 2, "residual": "contiguous"},
        {"shape": (2, 48, 19, 20), "layout": "channels_last", "blocks": 2, "form": "paper", "residual": "contiguous"},
        {"shape": (2, 48, 19, 20), "layout": "channels_last", "blocks": 2, "residual": "contiguous", "bias": True},
        {"shape": (3, 8, 10, 10), "layout": "channels_last", "bias": True},
    ],
    "upsample_bicubic2x": [
        {"shape": (3, 2, 5, 7), "sigma": 0.3},
        {"shape": (3, 1, 17, 16), "sigma": 0.3, "input_dtype": BF16},
        {"shape": (3, 3, 6, 9), "layout": "channels_last", "sigma": 0.3, "input_dtype": F32},
        {"shape": (2, 3, 4, 3), "input_dtype": F16},
        {"shape": (2, 1, 1, 257)},
    ],
}
for table in (ALL, FEW):
    table["instance_norm_plus_backward"] = [
        case
        for case in table["instance_norm_plus"]
        if not case.keys() & {"bias", "pool"}  # forward alone
    ]
