"""The mutants of cld_step; see `mutants`."""

DROP = ""
OP, CLD = "cld_step", "cuda/cld_step.cu"
MUTANTS = {
    f"{OP}: lanes of the noise of x reversed": (
        OP,
        CLD,
        "s.lane[lane], z_x[lane], z_v[lane])",
        "s.lane[lane], z_x[3 - lane], z_v[lane])",
    ),
    f"{OP}: the noise of x for v": (OP, CLD, "noise_normals(p.key_v, global", "noise_normals(p.key_x, global"),
    f"{OP}: the noise of x only where v has some": (OP, CLD, "if (p.draws_x())", "if (p.draws_v())"),
    f"{OP}: the noise of v only where x has some": (OP, CLD, "if (p.draws_v())", "if (p.draws_x())"),
    f"{OP}: every sample has the noise of the first": (
        OP,
        CLD,
        "p.first + static_cast<uint32_t>(sample)",
        "p.first",
    ),
    f"{OP}: the block counts elements": (OP, CLD, "static_cast<uint32_t>(begin / 4)", "static_cast<uint32_t>(begin)"),
    f"{OP}: a sample is as long as its x": (OP, CLD, "p.u + 2 * sample * elements", "p.u + sample * elements"),
    f"{OP}: the score of the first sample": (OP, CLD, "p.score + sample * elements", "p.score"),
    f"{OP}: v is written over x": (OP, CLD, "v.write(u + elements + begin)", "v.write(u + begin)"),
    f"{OP}: a score that is not there": (OP, CLD, "if (score != nullptr) s = Vector", "s = Vector"),
    f"{OP}: u lies as x does": (
        OP,
        CLD,
        "memory_offset(p.both(), p.u_channels_last, element)",
        "memory_offset(p.shape, p.u_channels_last, element)",
    ),
    f"{OP}: the layout of u for the score": (
        OP,
        CLD,
        "memory_offset(p.shape, p.score_channels_last, element)",
        "memory_offset(p.shape, p.u_channels_last, element)",
    ),
    f"{OP}: v lies a pixel's channels behind x in every layout": (OP, CLD, "x[p.x_to_v()]", "x[p.shape.channels]"),
    f"{OP}: one element too many": (OP, CLD, "if (element >= elements) continue", "if (element > elements) continue"),
    f"{OP}: the alignment of u is not asked": (OP, CLD, " && is_aligned<float, 4>(p.u)", DROP),
    f"{OP}: the alignment of the score is not asked": (OP, CLD, "is_aligned<float, 4>(p.score);", "true;"),
    f"{OP}: the size is not asked": (OP, CLD, " && elements % 4 == 0", DROP),
    f"{OP}: too few blocks": (
        OP,
        CLD,
        "grid_for((elements + 3) / 4, p.shape.samples)",
        "grid_for(elements / 4, p.shape.samples)",
    ),
    f"{OP}: samples beyond the grid are left out": (
        OP,
        CLD,
        "sample < p.shape.samples; sample",
        "sample < gridDim.y; sample",
    ),
    f"{OP}: x is moved before v": (OP, "cld_step.h", "const X dx = fma(", "const X dx = x += fma("),
    f"{OP}: A is taken for A - I": (OP, "cld_step.h", "  x += dx;", "  x = dx;"),
}
