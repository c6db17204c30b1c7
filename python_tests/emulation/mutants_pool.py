"""The mutants of instance_norm_plus with a bias and with the mean over 5x5 pixels behind it; see `mutants`."""

POOL, NORM, MOMENTS = "cuda/norm_pool.h", "cuda/instance_norm_plus.cu", "cuda/norm_moments.h"
CLUSTER, HEAD = "cuda/instance_norm_plus_cluster.cu", "instance_norm_plus.h"


def of(file, op="instance_norm_plus", **faults):
    return {f"{op}: {name.replace('_', ' ')}": (op, file, *pair) for name, pair in faults.items()}


MUTANTS = {
    **of(
        POOL,
        pool_without_the_pixel_on_the_left=("both + d[0], across", "both, across"),
        pool_takes_a_pixel_twice=("both + d[5];", "both + d[4];"),
        pool_takes_the_pixel_itself_twice=("(d[1] + d[2])", "(d[2] + d[2])"),
        pool_without_zeros_on_the_left=("{x > 0, x > 0, true,", "{true, true, true,"),
        pool_without_zeros_on_the_right=("x + 3 < width}", "true}"),
        pool_without_zeros_next_to_the_last_column=("x + 2 < width,", "true,"),
        pool_with_a_zero_too_many=("x + 3 < width}", "x + 4 < width}"),
        pool_writes_a_column_beyond_the_image=("kInner || x + column < image.width)", "true)"),
        pool_counts_5_columns_at_the_edge=("kInner ? kPoolPixels - 1", "true ? kPoolPixels - 1"),
        pool_counts_6_columns_inside=("kInner ? kPoolPixels - 1", "kInner ? kPoolPixels"),
        pool_counts_5_rows_at_the_edge=("static_cast<float>(image.inside(row, image.height))", "5.0f"),
        pool_counts_a_row_below_the_image=("min(at + kPoolReach, size - 1)", "min(at + kPoolReach, size)"),
        pool_counts_a_row_less_above=("max(at - kPoolReach, 0)", "max(at - kPoolReach, 1)"),
        pool_divides_by_24=("1.0f / 25.0f", "1.0f / 24.0f"),
        pool_does_not_divide_the_bias=("product(rows * shares[column], k[lane].bias)", "k[lane].bias"),
        pool_does_not_divide_the_scale=("kPoolShare * k[lane].scale", "k[lane].scale"),
        pool_reads_above_the_image=("if (row >= 0 && row <", "if (row <"),
        pool_reads_below_the_image=("if (row >= 0 && row < image.height)", "if (row >= 0)"),
        pool_begins_with_the_strip=("int row = top - kPoolReach", "int row = top"),
        pool_ends_with_the_strip=("row < bottom + kPoolReach", "row < bottom"),
        pool_writes_above_the_strip=("if (row >= top && row < bottom)", "if (row >= 0 && row < bottom)"),
        pool_writes_below_the_strip=("if (row >= top && row < bottom)", "if (row >= top)"),
        pool_forgets_the_row_two_above=("older[column][lane] = even[column][lane], ", ""),
        pool_takes_the_row_above_for_that_two_above=(
            "older[column][lane] = even[column][lane],",
            "older[column][lane] = odd[column][lane],",
        ),
        pool_forgets_the_pair_above=("pair[column][lane] = odd[column][lane], ", ""),
        pool_forgets_the_odd_row=(", odd[column][lane] = next[column][lane];", ";"),
        pool_without_the_pair_of_this_row=("pair[column][lane] += odd[column][lane];", ";"),
        pool_without_the_last_row=("pair[column][lane] + next[column][lane];", "pair[column][lane];"),
        pool_reads_one_row_for_all=("from += row, to += row", "to += row"),
        pool_writes_one_row_for_all=("from += row, to += row", "from += row"),
        pool_reads_one_row_for_all_one_by_one=("at += row;", ";"),
        pool_writes_a_row_too_low=(
            "static_cast<T*>(pooled) + at - kPoolReach * row",
            "static_cast<T*>(pooled) + at - row",
        ),
        pool_exchanges_channels_in_bfloat16=("lane == 0 ? word << 16", "lane == 1 ? word << 16"),
        pool_exchanges_channels_in_float16=("word >> 16 * lane", "word >> 16 * (1 - lane)"),
    ),
    **of(
        NORM,
        pool_of_the_first_strip=("top = chunk / pool.sides * pool.rows", "top = 0"),
        pool_of_the_first_columns=("(chunk % pool.sides * g.rows + row)", "(row)"),
        pool_of_channels_beyond_the_tile=("row < g.rows && slot < channels && x", "row < g.rows && x"),
        pool_of_the_first_tile_of_channels=(
            "(tile.channel + tile.slot) * (p.channels_last",
            "(tile.slot) * (p.channels_last",
        ),
        pool_inside_at_the_left_edge=("if (tile.x >= kPoolReach && tile.x +", "if (tile.x +"),
        pool_inside_at_the_right_edge=("+ kPoolColumns + kPoolReach <= pool", "+ kPoolColumns <= pool"),
        pool_leaves_out_the_last_rows=("(image.height + strips * kPoolRows - 1) /", "image.height /"),
        pool_leaves_out_the_last_columns=("(image.width + across - 1) / across", "(image.width + 20) / across"),
        pool_of_x_instead_of_the_sum=("images.sum : images.x;\n", "images.x : images.x;\n"),
        pool_in_vectors_in_any_layout=("if (p.plan.channels_last && PoolAccess", "if (PoolAccess"),
        pool_in_vectors_of_odd_channels=(" && PoolAccess<T>::fits(p.plan, {p.normalised(), p.y})", ""),
        the_mean_of_means_without_the_bias=("return p.biased_mean(channel, mean);", "return mean;"),
        a_mean_without_the_bias=("mean, p.biased_mean(c, mean), r", "mean, mean, r"),
        the_sum_without_the_bias=("v[1][lane] + bias[lane])", "v[1][lane])"),
        one_bias_for_all_lanes=(
            "sum_bias(images, tile.channel + tile.slot_of(lane))",
            "sum_bias(images, tile.channel)",
        ),
        the_bias_is_not_given=("p.sum, p.y, p.bias}", "p.sum, p.y, nullptr}"),
    ),
    **of(
        MOMENTS,
        a_bias_where_there_is_none=("images.bias[channel] : -0.0f", "images.bias[channel] : 1.0f"),
        the_bias_of_the_first_channel_in_a_sum=("images.bias[channel]", "images.bias[0]"),
    ),
    **of(
        HEAD,
        the_bias_of_the_first_channel=("mu + bias[channel]", "mu + bias[0]"),
        alpha_of_the_mean_without_the_bias=("(biased - m) * q", "(mu - m) * q"),
    ),
    **of(
        CLUSTER,
        "instance_norm_plus_cluster",
        the_mean_of_means_without_the_bias=("p.biased_mean(c, slots.means[c]); }", "slots.means[c]; }"),
        a_mean_without_the_bias=("mean, p.biased_mean(c, mean), r", "mean, mean, r"),
        the_sum_without_the_bias=("access.value(other, lane) + bias[lane];", "access.value(other, lane);"),
        the_bias_of_the_first_vector=("sum_bias(images, tile.slot + lane)", "sum_bias(images, lane)"),
        one_bias_for_all_lanes=("sum_bias(images, tile.slot + lane)", "sum_bias(images, tile.slot)"),
    ),
}
