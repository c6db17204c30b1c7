"""Inference forms of our networks: the same function, faster.

`build(model)` makes an `Engine` of an `NCSN` or `NCSNv2` on the CPU: score = engine(x, level) as the network's, with

- 3x3 convolutions by F(4x4, 3x3), a quarter of the products (csrc/winograd.h), where the size allows, the others with
  repacked weights; residual sums and the mean pooling in the convolutions' last pass;
- buffers that are used over and over, channels-last;
- float32; or, between the first and the last convolution, products of 16-bit integers with exact sums, or bfloat16.
"""

from .engine import PRECISIONS, Engine, build, why_not

__all__ = ["PRECISIONS", "Engine", "build", "why_not"]
