"""A dataset held in memory as 8-bit images, and the batches that training draws from it."""

import hashlib
from functools import cached_property

import torch

from .. import noise

SPLITS = ("train", "test", "all")


class Dataset:
    """What all datasets share: samples `x` (N, C, H, W) of one dtype, their labels, and where they come from."""

    content = "samples"
    images: torch.Tensor  # uint8, of datasets of images

    def __init__(self, x, labels, name, which, reopen):
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != x.shape[:1]):
            raise ValueError(
                f"{type(self).__name__}: labels must be int64 ({len(x)},), got {labels.dtype} {tuple(labels.shape)}"
            )
        self._x, self.labels, self.shape = x, labels, tuple(x.shape[1:])
        self.name, self.which, self._reopen = name, which, reopen

    def __len__(self):
        return len(self._x)

    def __repr__(self):
        size = " x ".join(str(s) for s in self.shape)
        return f"{type(self).__name__}({self.name}, {self.which}: {len(self)} {self.content} of {size})"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the shape and the values, in hex; equal for equal samples in equal order."""
        digest = hashlib.sha256(repr(tuple(self._x.shape)).encode())
        digest.update(self._x.numpy())
        return digest.hexdigest()

    def split(self, which: str) -> "Dataset":
        """The same source, opened with the same size, channels and limit, but another part of it.

        Args:
            which: "train", "test" or "all". Digits, glyphs, MNIST and CIFAR folders, CelebA with its partition file,
                image folders with `train` and `test` inside and npz files with train and test arrays keep their own
                division; everything else holds out each tenth image (indices 9, 19, ...) as "test".

        Returns:
            The dataset; itself if it is that part already.

        Raises:
            ValueError: `which` is unknown, the part is empty, or this dataset was made from a tensor.
        """
        if which not in SPLITS:
            raise ValueError(f"split: which must be one of {', '.join(SPLITS)}, got {which!r}")
        if which == self.which:
            return self
        if self._reopen is None:
            raise ValueError(f"split: {self.name} must come from open_dataset to have a part {which!r}, got a tensor")
        return self._reopen(which)

    def _checked(self, indices) -> torch.Tensor:
        indices = torch.as_tensor(indices)
        if indices.numel() == 0:
            indices = indices.to(torch.int64)
        if indices.dtype not in (torch.int64, torch.int32) or indices.dim() != 1:
            raise TypeError(
                f"batch: indices must be integers of shape (B,), got {indices.dtype} {tuple(indices.shape)}"
            )
        if indices.numel() and not (0 <= int(indices.min()) and int(indices.max()) < len(self)):
            raise IndexError(
                f"batch: indices must be in [0, {len(self)}), got {int(indices.min())} to {int(indices.max())}"
            )
        return indices.to(torch.int64)


class ImageDataset(Dataset):
    """Images as uint8 (N, C, H, W) in memory, with labels where the source has them.

    Attributes:
        images: uint8 tensor (N, C, H, W).
        labels: int64 tensor (N,), or None.
        shape: (C, H, W).
        name: the kind of the source and the last part of its path, for titles and messages.
        which: the part held, "train", "test" or "all".
        fingerprint: sha256 of the shape and the pixels, in hex; equal for equal images in equal order.
    """

    content = "images"

    def __init__(self, images, labels=None, *, name="images", which="all", reopen=None):
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
            raise TypeError(f"ImageDataset: images must be a uint8 tensor (N, C, H, W), got {got}")
        if 0 in images.shape:
            raise ValueError(f"ImageDataset: images must hold at least one pixel, got {tuple(images.shape)}")
        self.images = images.contiguous()
        super().__init__(self.images, labels, name, which, reopen)

    def batch(self, indices, *, seed, step, first=0, flip=False, dequantise=True) -> torch.Tensor:
        """Images as float32 in [0, 1], dequantised as in NCSN (Song & Ermon 2019, arXiv:1907.05600, released code).

        x = v/255 * 255/256 + U/256 = (v + U) / 256,  U uniform on (0, 1);  without dequantisation x = v/255

        Args:
            indices: int64 (B,) tensor or sequence, each in [0, N).
            seed: integer in [0, 2^64).
            step: global training step; integer in [0, 2^32).
            first: place of indices[0] in the global batch.
            flip: mirror each image left to right with probability 1/2.
            dequantise: add the uniform noise.

        Returns:
            float32 tensor (B, C, H, W). U and the flip of row i depend on (seed, step, first + i) alone, so the
            pieces of a batch equal the whole batch bit for bit.

        Raises:
            IndexError: an index is outside [0, N).
            TypeError: the indices are not integers.
        """
        v = self.images[self._checked(indices)]
        n = len(v)
        if flip:
            mirrored = noise.uniform((n,), seed, step=step, first=first, stream=noise.FLIP) < 0.5
            v = torch.where(mirrored[:, None, None, None], v.flip(-1), v)
        if not dequantise:
            return v.to(torch.float32).div_(255)
        u = noise.uniform((n, *self.shape), seed, step=step, first=first, stream=noise.DEQUANTISE)
        return u.add_(v).div_(256)
