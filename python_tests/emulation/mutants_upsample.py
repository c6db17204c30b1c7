"""The mutants of upsample_bicubic2x; see `mutants`."""

DROP = ""
OP, UPSAMPLE = "upsample_bicubic2x", "cuda/upsample_bicubic2x.cu"
MUTANTS = {
    f"{OP}: the border is not repeated above and below": (
        OP,
        UPSAMPLE,
        "clamped(near + (j - 1) * side, height)",
        "(near + (j - 1) * side)",
    ),
    f"{OP}: the border is not repeated to the left and right": (
        OP,
        UPSAMPLE,
        "clamped(i + j - 2, width)",
        "(i + j - 2)",
    ),
    f"{OP}: the rows' phases are exchanged": (OP, UPSAMPLE, "row % 2 != 0 ? 1 : -1", "row % 2 != 0 ? -1 : 1"),
    f"{OP}: the columns' phases are exchanged": (
        OP,
        UPSAMPLE,
        "even = w(column[3], column[2], column[1], column[0])",
        "even = w(column[0], column[1], column[2], column[3])",
    ),
    f"{OP}: the odd column is one pixel to the left": (
        OP,
        UPSAMPLE,
        "odd = w(column[1], column[2], column[3], column[4])",
        "odd = w(column[0], column[1], column[2], column[3])",
    ),
    f"{OP}: a plane's neighbours are always one apart": (
        OP,
        UPSAMPLE,
        "p.channels_last ? static_cast<uint32_t>(p.channels) : 1",
        "1",
    ),
    f"{OP}: a second pair stays in its row": (OP, UPSAMPLE, "next_row ? 0 : i + pair", "i + pair"),
    f"{OP}: a second pair starts its row again": (OP, UPSAMPLE, "row + next_row", "row"),
    f"{OP}: an odd width is taken as even": (OP, UPSAMPLE, "wrapped = twice >= width", "wrapped = 0"),
    f"{OP}: the input of the first sample": (OP, UPSAMPLE, "p.x + sample * p.elements() + x_plane", "p.x + x_plane"),
    f"{OP}: the input of the first channel": (OP, UPSAMPLE, "channel : channel * p.pixels();", "channel : 0;"),
    f"{OP}: the output plane has the input's size": (
        OP,
        UPSAMPLE,
        "channel : 4 * (channel * p.pixels())",
        "channel : channel * p.pixels()",
    ),
    f"{OP}: the noise of the plane's place": (
        OP,
        UPSAMPLE,
        "static_cast<uint32_t>(sample), block, z",
        "static_cast<uint32_t>(sample), in_plane, z",
    ),
    f"{OP}: every sample has the noise of the first": (
        OP,
        UPSAMPLE,
        "p.first + static_cast<uint32_t>(sample)",
        "p.first",
    ),
    f"{OP}: the noise is reversed": (OP, UPSAMPLE, "p.renoised(y[lane], z[lane])", "p.renoised(y[lane], z[3 - lane])"),
    f"{OP}: one thread too many": (
        OP,
        UPSAMPLE,
        "if (block >= p.elements()) return",
        "if (block > p.elements()) return",
    ),
    f"{OP}: one block of threads too few": (
        OP,
        UPSAMPLE,
        "grid_for(p.elements(), p.samples)",
        "grid_for(p.elements() - 1, p.samples)",
    ),
    f"{OP}: samples beyond the grid are left out": (
        OP,
        UPSAMPLE,
        "sample < p.samples; sample",
        "sample < gridDim.y; sample",
    ),
    f"{OP}: vectors whatever the stride": (OP, UPSAMPLE, "if (stride == 1) {", "if (true) {"),
    f"{OP}: u lies as y does": (
        OP,
        UPSAMPLE,
        "channel + place * p.channels, p.channels, u",
        "y_plane + place * stride, stride, u",
    ),
    f"{OP}: u is 2 y + 1": (OP, "upsample_bicubic2x.h", "fma(X(2), y_new, X(-1))", "fma(X(2), y_new, X(1))"),
    f"{OP}: the weights of the two outer taps are exchanged": (
        OP,
        "upsample_bicubic2x.h",
        "fma(five, x0, seven * x3)",
        "fma(seven, x0, five * x3)",
    ),
}
