"""The emulation of CUDA blocks itself: it finds the faults that it claims to find, and runs right kernels right."""

import ctypes
import re

import pytest
import torch
from emulation import build
from emulation.harness import SCHEDULES


@pytest.fixture(scope="module")
def faults():
    if build.why_not():
        pytest.skip(build.why_not())
    library = ctypes.CDLL(str(build.build_library("faults.cpp")))
    library.run_kernel.restype = ctypes.c_char_p

    def run(name, schedule=("forward", 0), grid_x=1, grid_y=1, threads=64, shared_bytes=64, cluster=0):
        assert library.lv_emulate_set_schedule(schedule[0].encode(), schedule[1])
        out = torch.zeros(64)
        sizes = grid_x, grid_y, threads, shared_bytes, cluster
        message = library.run_kernel(name.encode(), *sizes, ctypes.c_void_p(out.data_ptr()))
        return message.decode(), out

    return run


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("early_return_before_barrier", "deadlock: 63 threads wait at a barrier .* 1 have left"),
        ("barrier_in_a_branch", "meet at the barriers of lines"),
        ("early_return_before_shuffle", "deadlock: 0 threads wait at a barrier and 31 at a shuffle"),
        ("different_shuffles", "meet at the shuffles of lines"),
        ("lane_outside_its_mask", "mask lacks the lane"),
        ("source_outside_the_mask", "reads lane (16|0), which does not take part"),
        ("shared_too_far", "written out of its 64 bytes"),
        ("shared_before_its_start", "written out of its 64 bytes"),
        ("misaligned", "misaligned access of 16 bytes in thread"),
        ("throws", "a thread threw"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_faults_are_found(faults, kernel, message, schedule):
    said, _ = faults(kernel, schedule)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("arrives_twice", "arrives at the cluster's barrier twice"),
        ("waits_without_arriving", "without having arrived"),
        ("leaves_before_the_cluster_meets", "127 at the cluster's barrier, 1 have left"),
        ("no_such_block", "has no block 2"),
        ("not_shared", "outside the block's shared memory"),
    ],
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_faults_of_clusters_are_found(faults, kernel, message, schedule):
    said, _ = faults(kernel, schedule, grid_x=2, cluster=2)
    assert message in said, said


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kernel", ["reads_a_block_that_has_ended", "reads_another_block_too_early"])
def test_another_block_that_is_not_there_reads_nan(faults, kernel, schedule):
    assert faults(kernel, schedule, grid_x=2, cluster=2)[1].isnan().any()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_of_a_cluster_read_each_other(faults, schedule):
    said, sums = faults("reads_another_block", schedule, grid_x=2, cluster=2)
    assert said == "" and sums.tolist() == [100.0 + 2 * (i % 16) for i in range(64)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_copies_arrive_when_they_are_waited_for(faults, schedule):
    said, copied = faults("copies_asynchronously", schedule)
    assert said == "" and copied.tolist() == [1.0, 2.0, 3.0, 4.0] * 16
    if schedule[0] != "random":  # there some copies are early
        assert faults("does_not_wait_for_copies", schedule)[1].isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threads": 0}, "invalid block size"),
        ({"threads": 1025}, "invalid block size"),
        ({"grid_y": 0}, "no blocks"),
        ({"grid_y": 65536}, "too many blocks"),
        ({"shared_bytes": 49153}, "48 KiB"),
        ({"shared_bytes": 227 * 1024 + 1, "cluster": 1}, "227 KiB"),
        ({"shared_bytes": 64, "cluster": 2}, "whole number of clusters"),
        ({"shared_bytes": 64, "cluster": 9, "grid_x": 9}, "more than 8 blocks"),
        ({"shared_bytes": 0}, "its launch gave none"),
        ({"threads": 48}, "names a lane that is not in the block"),
    ],
)
def test_launches_that_cuda_refuses(faults, arguments, message):
    kernel = "race_in_order" if "shared_bytes" in arguments else "sums_a_warp"
    assert message in faults(kernel, **arguments)[0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_shared_memory_starts_as_nan(faults, schedule):
    assert faults("shared_starts_as_nan", schedule)[1].isnan().all()


def test_the_order_of_threads_follows_the_schedule(faults):
    last = {schedule: faults("race_in_order", schedule)[1][0].item() for schedule in SCHEDULES}
    assert last["forward", 0] == last["round", 0] == 63 and last["reverse", 0] == 0
    assert last["random", 1] != last["random", 2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_missing_barrier_reads_nan(faults, schedule):
    assert faults("reads_before_a_barrier", schedule)[1].isnan().any()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_right_kernels_run_right(faults, schedule):
    said, sums = faults("sums_a_warp", schedule)
    assert said == "" and sums.tolist() == [496.0] * 32 + [1520.0] * 32
    said, right = faults("shuffles", schedule)
    assert said == "" and right.tolist() == [1.0] * 64
