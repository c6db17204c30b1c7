"""The mutants of the one-pass form of instance_norm_plus; see `mutants`."""

DROP = ""
OP, CLUSTER, MOMENTS = "instance_norm_plus_cluster", "cuda/instance_norm_plus_cluster.cu", "cuda/norm_moments.h"
HEAD = "norm_cluster.h"


def of(file, **faults):
    return {f"{OP}: {name.replace('_', ' ')}": (OP, file, *pair) for name, pair in faults.items()}


MUTANTS = {
    **of(
        CLUSTER,
        partials_are_read_before_they_are_there=(
            "    cluster_arrive();\n    cluster_wait();  // every",
            "    // every",
        ),
        a_block_ends_while_others_read=("cluster_wait();  // the others", "// the others"),
        partials_may_go_before_they_are_read=(
            "cluster_wait();  // every block's partials are there",
            "cluster_wait();\n    cluster_arrive();\n    cluster_wait();\n    if (threadIdx.x == 0) partials[0] = NAN;",
        ),
        no_barrier_after_the_centres=("pixels);\n  __syncthreads();", "pixels);"),
        no_barrier_before_the_next_sums=("__syncthreads();  // before the next round's sums", DROP),
        no_barrier_before_the_means_are_read=(
            "others\n    __syncthreads();",
            "others",
        ),
        no_barrier_after_the_coefficients=(
            "stats[2 * g.slots + 1] = q;\n    __syncthreads();",
            "stats[2 * g.slots + 1] = q;",
        ),
        the_last_copies_are_not_waited_for=("copies_wait<0>()", "copies_wait<1>()"),
        the_second_last_copies_are_not_waited_for=("copies_wait<1>()", "copies_wait<2>()"),
        copies_are_never_committed=("copies_commit();", DROP),
        a_block_begins_at_the_first_chunk=("blockIdx.x) * cluster.chunks", "blockIdx.x) * 0"),
        a_chunk_of_the_next_block=("chunk < cluster.chunks ?", "true ?"),
        groups_take_the_same_chunk=("round * cluster.groups + group", "round * cluster.groups"),
        groups_share_their_sums=("tile.group * norm_group_sums", "0 * norm_group_sums"),
        threads_without_a_row_have_one=("row < g.rows ? pixels(p, cluster, chunk) : 0", "pixels(p, cluster, chunk)"),
        the_first_row_is_left_out=("int pixel = row; pixel < count", "int pixel = row + 1; pixel < count"),
        a_row_too_many=(
            "if (pixel + u * g.rows < count) body",
            "if (pixel + u * g.rows <= count) body",
        ),
        a_chunk_lies_where_the_first_does=("(chunk * static_cast<int>(p.chunks.pixels) + row)", "(row)"),
        block_and_place_exchanged=("(chunk % cluster.chunks)", "(chunk / cluster.chunks)"),
        the_partials_of_the_own_block=("static_cast<unsigned>(chunk / cluster.chunks)", "blockIdx.x"),
        statistics_of_the_last_block_alone=("if (blockIdx.x == 0) stats[c]", "if (blockIdx.x == 7) stats[c]"),
        m_and_q_are_not_kept=("stats[2 * g.slots] = m,", DROP),
        the_level_of_the_first_sample=("p.affine(sample, c)", "p.affine(0, c)"),
        samples_beyond_the_grid_are_left_out=("sample < p.shape.samples;", "sample < gridDim.y;"),
        the_sum_is_not_written=("total.write(static_cast<T*>(images.sum) + from + place);", DROP),
        x_stays_where_the_sum_should_be=("*reinterpret_cast<Stored*>(slab + place) = total;", DROP),
        the_sum_is_not_rounded=("values[lane] = access.value(total, lane);", ";"),
        no_elu=("if (p.elu)", "if (false)"),
        the_squares_are_not_kept=(", slots.scales[c] = squares;", ";"),
    ),
    **of(
        MOMENTS,
        C_instead_of_C_less_1=("(channels > 1.0f ? channels - 1.0f : 1.0f)", "channels"),
        chunks_are_averaged_without_the_correction=(
            "fma(delta * delta, before * move, squares + part[p.shape.channels])",
            "squares + part[p.shape.channels]",
        ),
        the_first_chunk_only=("chunk = 1; chunk < p.chunks.count", "chunk = 1; chunk < 1"),
    ),
    **of(HEAD, too_little_room_for_sums=("2 * (values >", "1 * (values >")),
}
