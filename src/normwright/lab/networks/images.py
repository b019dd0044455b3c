"""The samples that the networks for images take."""

from __future__ import annotations

from normwright.errors import ShapeError


def image_shape(network: str, sample_shape: tuple[int, ...], *, least: int = 1) -> tuple[int, int, int]:
    """The sample shape as (channels, height, width).

    Args:
        network: named in the error.
        sample_shape: without the batch axis.
        least: the smallest height and width that the network takes, in pixels.
    Raises:
        ShapeError: not three axes, or too small.
    Example:
        >>> image_shape("lenet", (1, 28, 28), least=8)
        (1, 28, 28)
    """
    if len(sample_shape) != 3 or min(sample_shape) < 1 or min(sample_shape[1:]) < least:
        size = f" of at least {least}×{least} pixels" if least > 1 else ""
        raise ShapeError(
            f"{network} takes images (channels, height, width){size}, but a sample has shape {sample_shape}: "
            "enlarge the images, or take the network 'mlp', which takes any shape"
        )
    channels, height, width = sample_shape
    return channels, height, width
