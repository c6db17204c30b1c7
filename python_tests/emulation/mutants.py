"""Faults put into the CUDA kernels one at a time; the checks must notice each.

A mutant is (op, file in csrc, text that occurs once, replacement).
"""

from . import mutants_cld, mutants_cluster, mutants_norm, mutants_pool, mutants_table, mutants_upsample

DROP = ""
NOISE, STEP, PERTURB, DSM = (f"cuda/{op}.cu" for op in ("noise", "langevin_step", "perturb", "dsm_loss"))
MUTANTS = {
    **mutants_cld.MUTANTS,
    **mutants_cluster.MUTANTS,
    **mutants_norm.MUTANTS,
    **mutants_pool.MUTANTS,
    **mutants_table.MUTANTS,
    **mutants_upsample.MUTANTS,
    "noise: one element too many": (
        "noise",
        NOISE,
        "begin + lane < p.elements; ++lane",
        "begin + lane <= p.elements; ++lane",
    ),
    "noise: the tail is left out": (
        "noise",
        NOISE,
        "begin + lane < p.elements; ++lane",
        "begin + lane + 1 < p.elements; ++lane",
    ),
    "noise: every sample is the first": ("noise", NOISE, "p.first + static_cast<uint32_t>(sample)", "p.first"),
    "noise: the block counts elements": (
        "noise",
        NOISE,
        "static_cast<uint32_t>(begin / 4), lanes",
        "static_cast<uint32_t>(begin), lanes",
    ),
    "noise: samples beyond the grid are left out": (
        "noise",
        NOISE,
        "sample < p.samples; sample += gridDim.y",
        "sample < gridDim.y; sample += gridDim.y",
    ),
    "langevin_step: lanes reversed": (
        "langevin_step",
        STEP,
        "p.moved(x4.lane[lane], s4.lane[lane], z[lane])",
        "p.moved(x4.lane[lane], s4.lane[lane], z[3 - lane])",
    ),
    "langevin_step: the score of the first sample": ("langevin_step", STEP, "p.score + sample * elements", "p.score"),
    "langevin_step: the layout of x for the score": (
        "langevin_step",
        STEP,
        "memory_offset(p.shape, p.score_channels_last, element)",
        "memory_offset(p.shape, p.x_channels_last, element)",
    ),
    "langevin_step: one element too many": (
        "langevin_step",
        STEP,
        "if (element >= elements ||",
        "if (element > elements ||",
    ),
    "langevin_step: the mask is ignored": (
        "langevin_step",
        STEP,
        "|| p.is_known(sample, element)) continue",
        ") continue",
    ),
    "langevin_step: the alignment of the score is not asked": (
        "langevin_step",
        STEP,
        " && is_aligned<S, 4>(p.score)",
        DROP,
    ),
    "langevin_step: the size is not asked": ("langevin_step", STEP, " p.shape.elements() % 4 == 0 &&", DROP),
    "langevin_step: too few blocks": (
        "langevin_step",
        STEP,
        "grid_for((p.shape.elements() + 3) / 4, p.shape.samples)",
        "grid_for(p.shape.elements() / 4, p.shape.samples)",
    ),
    "perturb: lanes reversed": (
        "perturb",
        PERTURB,
        "p.perturbed(x4.lane[lane], sigma, z[lane])",
        "p.perturbed(x4.lane[lane], sigma, z[3 - lane])",
    ),
    "perturb: the level of the first sample": ("perturb", PERTURB, "p.sigma[sample]", "p.sigma[0]"),
    "perturb: one element too many": (
        "perturb",
        PERTURB,
        "if (begin + lane < elements)",
        "if (begin + lane <= elements)",
    ),
    "perturb: the alignment of x is not asked": ("perturb", PERTURB, " && is_aligned<T, 4>(p.x)", DROP),
    "dsm_loss: no barrier before the warps are added": ("dsm_loss", DSM, "= sum;\n    __syncthreads();", "= sum;"),
    "dsm_loss: no barrier before the next sample": (
        "dsm_loss",
        DSM,
        "__syncthreads();  // before the next sample's sums",
        DROP,
    ),
    "dsm_loss: a barrier that not all threads reach": (
        "dsm_loss",
        DSM,
        "    float r[4] = {};",
        "    if (begin >= p.shape.elements()) return;\n    float r[4] = {};",
    ),
    "dsm_loss: a step of the warp's sum is missing": (
        "dsm_loss",
        DSM,
        "offset > 0; offset /= 2",
        "offset > 1; offset /= 2",
    ),
    "dsm_loss: the warp's sum goes up": ("dsm_loss", DSM, "__shfl_down_sync", "__shfl_up_sync"),
    "dsm_loss: the wrong lane writes": ("dsm_loss", DSM, "if (lane == 0) p.loss", "if (lane == 1) p.loss"),
    "dsm_loss: a warp is left out": (
        "dsm_loss",
        DSM,
        "warp < kThreads / kWarp; ++warp",
        "warp < kThreads / kWarp - 1; ++warp",
    ),
    "dsm_loss: the warps are added in reverse": (
        "dsm_loss",
        DSM,
        "for (int warp = 1; warp < kThreads / kWarp; ++warp)",
        "for (int warp = kThreads / kWarp - 1; warp > 0; --warp)",
    ),
    "dsm_loss: too little shared memory": (
        "dsm_loss",
        DSM,
        "kThreads / kWarp * sizeof(float)",
        "(kThreads / kWarp - 1) * sizeof(float)",
    ),
    "dsm_loss: the pieces of the first sample": (
        "dsm_loss",
        DSM,
        "p.partials[sample * p.chunks() + blockIdx.x]",
        "p.partials[blockIdx.x]",
    ),
    "dsm_loss: the first piece is left out": ("dsm_loss", DSM, "chunk = lane; chunk <", "chunk = lane + 1; chunk <"),
    "dsm_loss: the gradient's weight of the first sample": (
        "dsm_loss",
        DSM,
        "p.weight_of(sample) * sigma",
        "p.weight_of(0) * sigma",
    ),
}
