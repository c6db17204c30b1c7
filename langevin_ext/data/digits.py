"""scikit-learn's 1,797 scanned handwritten digits, 8x8, from its installed files."""

import numpy as np

from .common import Request, bad, gather, limited

N_TEST = 297


def open_digits(rest: str, request: Request):
    """Handwritten digits with a fixed, class-balanced division into 1,500 training and 297 test images.

    The scans hold whole numbers s from 0 to 16; the pixel is (255 s + 8) div 16, that is 255 s / 16 rounded half up.
    The test images are spread evenly over each class in file order, 30 of each of 0 to 6 and 29 of each of 7 to 9.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    if rest:
        raise bad("digits", "digits without anything after it", f"{'digits:' + rest!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ModuleNotFoundError(
            "open_dataset: digits needs scikit-learn, which `pip install 'langevin_ext[demo]'` installs"
        ) from error
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    images = ((bunch.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[:, None]
    test = test_mask(labels)
    indices = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test), "all": np.arange(len(labels))}
    chosen = limited(indices[request.split], request, "digits")
    return gather(images, chosen, request, "digits"), labels[chosen]


def test_mask(labels: np.ndarray) -> np.ndarray:
    """True for the N_TEST test images: of the m images of a class, quota q, the k-th with a step in k q div m."""
    test = np.zeros(len(labels), bool)
    classes = np.unique(labels)
    for i, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        quota = N_TEST // len(classes) + (i < N_TEST % len(classes))
        k = np.arange(len(members) + 1) * quota // len(members)
        test[members[np.diff(k) == 1]] = True
    return test
