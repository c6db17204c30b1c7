"""The calls of a model during a run: counted, and split where a batch is too large for the memory."""

import warnings

import torch

# What else says so: torch's allocator on the CPU, oneDNN (in these words alone), and the libraries on CUDA.
WORDS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "could not create a primitive",
    "could not create a memory object",
    "STATUS_ALLOC_FAILED",
)


class Counting:
    """A score that counts its calls in calls[size], and evaluates a batch in parts once it has run out of memory.

    A model maps each sample by itself, so that the parts together are the whole; only the last digits of a network can
    differ, as they do between any two batch sizes.

    Args:
        score: score(x, level).
        runner: what computes it, the model or an engine; its at_sigma(x, sigma) if it has one; its `free()`, if it has
            one, is called before a smaller part is tried.
        calls: {"HxW": number of calls}.
        size: "HxW" of the model.
        together: {"HxW": samples that fit at a time}, shared by all stages of a run; filled when memory runs out.
    """

    def __init__(self, score, runner, calls, size, together):
        self.score, self.runner, self.calls, self.size, self.together = score, runner, calls, size, together
        self.reason = ""

    def count(self) -> None:
        """One more call."""
        self.calls[self.size] += 1

    def __call__(self, x, level):
        return self._in_parts(self.score, x, level)

    def at_sigma(self, x, sigma):
        return self._in_parts(self.runner.at_sigma, x, sigma)

    def _in_parts(self, score, x, label):
        """score(x, label) with as many samples at a time as fit; halved until they do, and said once."""
        before = self.together.get(self.size, max(1, len(x)))
        count = before
        while (result := self._try(score, x, label, count)) is None:
            if count == 1:
                raise MemoryError(f"sample: a single sample must fit into memory, got {self.reason}")
            count = (min(count, len(x)) + 1) // 2
        if count < before:
            self.together[self.size] = count
            warnings.warn(
                f"sample: out of memory with {min(before, len(x))} samples of {self.size} at a time; "
                f"going on with {count}, which changes nothing but the speed",
                stacklevel=2,
            )
        return result

    def _try(self, score, x, label, count):
        """The score from parts of `count` samples, or None if memory runs out.

        The error is let go of before the next attempt, as it holds what had been allocated.
        """
        several = torch.is_tensor(label) and label.dim() > 0 and len(label) == len(x)
        parts = []
        try:
            for low in range(0, max(1, len(x)), count):
                self.count()
                part = slice(low, low + count)
                parts.append(score(x[part], label[part] if several else label))
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.reason = str(error).partition("\n")[0] or "an allocation that failed"
        parts.clear()
        getattr(self.runner, "free", lambda: None)()
        if x.is_cuda:
            torch.cuda.empty_cache()
        return None


def is_out_of_memory(error) -> bool:
    """Whether an error says that the CPU or the GPU has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)
