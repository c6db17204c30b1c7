"""Many samples in shards: the work of one or several processes, or of machines that do not know of each other.

    shard k = samples first + k size, ..., first + (k + 1) size - 1        whoever draws it

A shard is one file, written whole or not at all; what is missing is drawn by the next call, by however many processes.
No more than one shard is in memory, and the merged file is written in pieces.
"""

from .merge import merge
from .run import default_size, sample_shards

__all__ = ["default_size", "merge", "sample_shards"]
