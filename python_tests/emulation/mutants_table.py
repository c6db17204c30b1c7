"""Faults in the step that reads a table, and in the one that goes to its next row."""

STEP, HEADER = "cuda/langevin_step.cu", "langevin_step.h"
MUTANTS = {
    "advance_row: no barrier before the next row is written": (
        "advance_row",
        STEP,
        "__syncthreads();\n  if (threadIdx.x == 0) p.table",
        "if (threadIdx.x == 0) p.table",
    ),
    "advance_row: every thread goes on": (
        "advance_row",
        STEP,
        "if (threadIdx.x == 0) p.table.place[kPlaceRow] = row;",
        "p.table.place[kPlaceRow] += 1;",
    ),
    "advance_row: the level of the row before": (
        "advance_row",
        STEP,
        "p.level_of(row)",
        "p.level_of(row - 1)",
    ),
    "advance_row: samples beyond the block are left out": (
        "advance_row",
        STEP,
        "sample < p.samples; sample += kThreads",
        "sample < p.samples && sample < kThreads; sample += kThreads",
    ),
    "advance_row: one row too many": ("advance_row", HEADER, "row >= 0 && row < count", "row >= 0 && row <= count"),
    "langevin_table_step: the coefficients are exchanged": (
        "langevin_table_step",
        HEADER,
        "held ? values[kNoiseCoef] : nan",
        "held ? values[kScoreCoef] : nan",
    ),
    "langevin_table_step: the halves of the seed are exchanged": (
        "langevin_table_step",
        HEADER,
        "p.key.seed_low = static_cast<uint32_t>(seed);",
        "p.key.seed_low = static_cast<uint32_t>(seed >> 32);",
    ),
    "langevin_table_step: the first sample is 0": (
        "langevin_table_step",
        HEADER,
        "p.first = static_cast<uint32_t>(table.place[kPlaceFirst]);",
        "p.first = 0;",
    ),
    "langevin_table_step: the row is the step": (
        "langevin_table_step",
        HEADER,
        "held ? static_cast<uint32_t>(values[kStepNumber]) : 0",
        "static_cast<uint32_t>(row)",
    ),
}
