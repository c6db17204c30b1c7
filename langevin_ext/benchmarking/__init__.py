"""Timing of the kernels, networks and samplers, for `langevin-ext bench` and the benchmarks of the source tree."""
