"""How many samples a run takes at a time where the user does not say."""

import math

import torch

ON_CPU = 2**16  # values of x
ON_GPU = 2**18  # where the network is not one of ours
MOST_ON_GPU = 2**19
TILE = 128  # pixels, and channels, that one multiprocessor computes at a time in a convolution
NEARLY = 1.005


def default_batch(models, shape, device) -> int:
    """As many as have 2^16 values on the CPU; on a GPU as many as fill it, if the last model is one of our networks."""
    values = math.prod(shape)
    if device.type == "cpu":
        return max(1, ON_CPU // values)
    ngf = getattr(models[-1], "ngf", None)
    if device.type != "cuda" or ngf is None:
        return max(1, ON_GPU // values)
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return filling_batch(multiprocessors, shape, ngf, max(1, MOST_ON_GPU // values))


def filling_batch(multiprocessors, shape, ngf, most) -> int:
    """The largest batch up to `most` whose convolutions leave (nearly) the fewest multiprocessors idle."""
    seconds = [1 / efficiency(batch, multiprocessors, shape, ngf) for batch in range(1, most + 1)]
    return max(i + 1 for i, one in enumerate(seconds) if one <= NEARLY * min(seconds))


def efficiency(batch, multiprocessors, shape, ngf) -> float:
    """The share of multiprocessors at work, over the products of a network of width ngf.

    A convolution is cut into tiles of 128 pixels of the batch by 128 channels, and each multiprocessor has one at a
    time: what does not fill the last round is lost.
    """
    _, height, width = shape
    full, low = height * width, math.ceil(height / 2) * math.ceil(width / 2)
    # pixels and channels of the results, and the share of the products that 32 pixels and ngf 128 have there
    kinds = ((low, 2 * ngf, 0.675), (full, ngf, 0.275), (low, ngf, 0.05))
    time = 0.0
    for pixels, channels, share in kinds:
        across = math.ceil(channels / TILE)
        rounds = math.ceil(math.ceil(batch * pixels / TILE) * across / multiprocessors)
        time += share * rounds * multiprocessors / (batch * pixels / TILE * across)
    return 1 / time
