"""The mutants of instance_norm_plus; see `mutants`. `HEAD` is shared with the CPU core, which stays as it is."""

DROP = ""
MOMENTS = "cuda/norm_moments.h"
NORM, BACK = "cuda/instance_norm_plus.cu", "cuda/instance_norm_plus_backward.cu"
TILES, HEAD = "cuda/norm_tiles.h", "instance_norm_plus.h"
MUTANTS = {
    "instance_norm_plus: C instead of C - 1": (
        "instance_norm_plus",
        MOMENTS,
        "(channels > 1.0f ? channels - 1.0f : 1.0f)",
        "channels",
    ),
    "instance_norm_plus: chunks are averaged without Chan's correction": (
        "instance_norm_plus",
        MOMENTS,
        "fma(delta * delta, before * move, squares + part[p.shape.channels])",
        "squares + part[p.shape.channels]",
    ),
    "instance_norm_plus: the first chunk only": (
        "instance_norm_plus",
        MOMENTS,
        "chunk = 1; chunk < p.chunks.count",
        "chunk = 1; chunk < 1",
    ),
    "instance_norm_plus: the mean is not corrected": (
        "instance_norm_plus",
        MOMENTS,
        "mean = __fadd_rn(centre, off)",
        "mean = 1.001f * centre",
    ),
    "instance_norm_plus: no barrier after the centres": (
        "instance_norm_plus",
        NORM,
        "static_cast<float>(tile.pixels));\n    __syncthreads();",
        "static_cast<float>(tile.pixels));",
    ),
    "instance_norm_plus: no barrier before the next sample's sums": (
        "instance_norm_plus",
        NORM,
        "__syncthreads();  // before the next sample's sums",
        DROP,
    ),
    "instance_norm_plus: no barrier after the coefficients": (
        "instance_norm_plus",
        NORM,
        "make_coefficients(p, tile, sample, m, q, slots);\n  __syncthreads();",
        "make_coefficients(p, tile, sample, m, q, slots);",
    ),
    "instance_norm_plus_backward: the statistics of another chunk's block": (
        "instance_norm_plus_backward",
        NORM,
        "if (tile.chunk == 0) stats",
        "if (tile.chunk == 1) stats",
    ),
    "instance_norm_plus: the sum is not written": (
        "instance_norm_plus",
        NORM,
        "access.write(images.sum, at, v[0]);",
        DROP,
    ),
    "instance_norm_plus: the sum is not rounded before it is normalised": (
        "instance_norm_plus",
        NORM,
        "access.rounded(v[0][lane] + v[1][lane] + bias[lane])",
        "v[0][lane] + 1.01f * v[1][lane]",
    ),
    "instance_norm_plus: too little shared memory": (
        "instance_norm_plus",
        TILES,
        "2 * std::max(g.rows * g.slots, kThreads)",
        "g.rows * g.slots",
    ),
    "instance_norm_plus: the alignment is not asked": (
        "instance_norm_plus",
        TILES,
        "return is_aligned<T, kLanes>(image);",
        "return image != reinterpret_cast<const void*>(1);",
    ),
    "instance_norm_plus: the size is not asked": (
        "instance_norm_plus",
        TILES,
        "% kLanes != 0) return false",
        "% kLanes < 0) return false",
    ),
    "instance_norm_plus: the last vector of a column is left out": (
        "instance_norm_plus",
        TILES,
        "(vectors - row - 1) / g.rows + 1",
        "(vectors - row - 1) / g.rows",
    ),
    "instance_norm_plus: a vector too many in a column": (
        "instance_norm_plus",
        TILES,
        "(vectors - row - 1) / g.rows + 1",
        "(vectors - row) / g.rows + 1",
    ),
    "instance_norm_plus: an odd row is left out": (
        "instance_norm_plus",
        TILES,
        "live = (live + 1) / 2",
        "live = live / 2",
    ),
    "instance_norm_plus: no barrier before the rows are added": (
        "instance_norm_plus",
        TILES,
        "  __syncthreads();\n  for (int live",
        "  for (int live",
    ),
    "instance_norm_plus: no barrier between the additions": (
        "instance_norm_plus",
        TILES,
        "sums[a * size + i + half];\n    }\n    __syncthreads();",
        "sums[a * size + i + half];\n    }",
    ),
    "instance_norm_plus: no barrier after a block's sum": (
        "instance_norm_plus",
        TILES,
        "value[a][0] = sums[a * kThreads];\n  __syncthreads();",
        "value[a][0] = sums[a * kThreads];",
    ),
    "instance_norm_plus: lanes of a channel are not added": (
        "instance_norm_plus",
        TILES,
        "int lane = 1; lane < kLanes; ++lane) sum",
        "int lane = 2; lane < kLanes; ++lane) sum",
    ),
    "instance_norm_plus: channels beyond the tile": ("instance_norm_plus", TILES, " && slot < channels ?", " ?"),
    "instance_norm_plus_backward: C instead of C - 1": (
        "instance_norm_plus_backward",
        HEAD,
        "p.shape.channels > 1 ? channels - A(1) : A(1)",
        "channels",
    ),
    "instance_norm_plus_backward: gradient without the path through the means": (
        "instance_norm_plus_backward",
        HEAD,
        "(grad_mu - scale * s1) / pixels",
        "-scale * s1 / pixels",
    ),
    "instance_norm_plus_backward: gradient without r in S2": (
        "instance_norm_plus_backward",
        BACK,
        "sums[g.rows * g.slots + slot] * r[slot]",
        "sums[g.rows * g.slots + slot]",
    ),
    "instance_norm_plus_backward: gradient without ELU's slope": (
        "instance_norm_plus_backward",
        BACK,
        "return p.elu ? grad_y * elu_slope(k(x)) : grad_y;",
        "return grad_y;",
    ),
    "instance_norm_plus_backward: gradient without that of the sum": (
        "instance_norm_plus_backward",
        BACK,
        "if (images.grad_sum != nullptr) {",
        "if (false) {",
    ),
    "instance_norm_plus_backward: no barrier before the coefficients are read": (
        "instance_norm_plus_backward",
        BACK,
        "tile.channel + slot));\n    __syncthreads();",
        "tile.channel + slot));",
    ),
    "instance_norm_plus_backward: no barrier after the coefficients": (
        "instance_norm_plus_backward",
        BACK,
        "row[2 * channels] = d.beta;\n    }\n    __syncthreads();",
        "row[2 * channels] = d.beta;\n    }",
    ),
    "instance_norm_plus_backward: rows of every chunk but the first": (
        "instance_norm_plus_backward",
        BACK,
        "if (tile.chunk != 0) continue;",
        "if (tile.chunk == 0) continue;",
    ),
    "instance_norm_plus_backward: every level has the sum of all samples": (
        "instance_norm_plus_backward",
        BACK,
        "if (p.sample_level(sample) == level) sum",
        "sum",
    ),
    "instance_norm_plus: the level of the first sample": (
        "instance_norm_plus",
        NORM,
        "p.affine(sample, c)",
        "p.affine(0, c)",
    ),
    "instance_norm_plus: one slot to a vector of channels": (
        "instance_norm_plus",
        TILES,
        "g.columns * (p.channels_last ? kLanes : 1)",
        "g.columns",
    ),
    "instance_norm_plus_backward: the first chunk's sums for all": (
        "instance_norm_plus_backward",
        BACK,
        "chunk < p.chunks.count",
        "chunk < 1",
    ),
    "instance_norm_plus_backward: one column too many": (
        "instance_norm_plus_backward",
        BACK,
        "if (column >= columns)",
        "if (column > columns)",
    ),
}
