"""Inference forms of our networks: the same function, faster.

`build(model)` makes an `Engine` of an `NCSN` or `NCSNv2`: score = engine(x, level) as the network's. On the CPU with

- 3x3 convolutions by F(4x4, 3x3), a quarter of the products (csrc/winograd.h), where the size allows, the others with
  repacked weights; residual sums and the mean pooling in the convolutions' last pass;
- buffers that are used over and over, channels-last;
- float32; or, between the first and the last convolution, products of 16-bit integers with exact sums, or bfloat16.

On a GPU with

- cuDNN's channels-last convolutions with weights cast once, the mean pooling as a stride;
- residual sums and ELU in the norms' pass;
- fp16, bf16, TF32 or float32 between the first and the last convolution, which are float32;
- nothing that waits for the GPU, so that a forward pass can be captured as a graph (`samplers.graphs`).
"""

from .choice import build, gpu_form
from .engine import Engine
from .precisions import ON_CPU, ON_GPU, PRECISIONS
from .served import why_not

__all__ = ["ON_CPU", "ON_GPU", "PRECISIONS", "Engine", "build", "gpu_form", "why_not"]
