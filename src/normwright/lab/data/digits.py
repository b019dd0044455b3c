"""scikit-learn's digits: 1,797 images of 8 × 8 grey pixels from 0 to 16, 10 classes, part of the package.

References:
    Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

import torch

from normwright.errors import MissingExtraError
from normwright.lab.data.dataset import Raw
from normwright.lab.data.split import stratified

TEST_SHARE = 0.2


def read_digits() -> Raw:
    """The digits, a fifth of each class held out as the test split.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as fault:
        raise MissingExtraError(
            f"the digits come with scikit-learn, which cannot be imported ({fault}); "
            "install it with: pip install 'normwright[lab]'"
        ) from fault
    digits = load_digits()
    x = torch.from_numpy(digits.images).to(torch.uint8).unsqueeze(1)
    y = torch.from_numpy(digits.target).to(torch.int64)
    train, test = stratified(y, TEST_SHARE)
    classes = tuple(str(name) for name in digits.target_names)
    return Raw("digits", x[train], y[train], x[test], y[test], classes, top=16)
