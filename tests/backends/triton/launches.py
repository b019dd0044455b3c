"""Calls that between them launch every Triton kernel, with and without what can be left away."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from normwright.backends.triton import channels, groups, rows

EPS = 1e-5
ALL = [True] * 4

# The activation, whether there is a residual, and whether a mask of the activation is kept.
EPILOGUES = ((None, False, False), ("silu", False, False), ("relu", True, True))


def _images(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    x = torch.empty(shape, dtype=dtype)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def _rows(
    x: Tensor, normalized_shape: list[int], center: bool, epilogue: tuple[str | None, bool, bool]
) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(normalized_shape)
    bias = weight if center else None
    settings = (normalized_shape, center)
    _, mean, rstd, mask = rows.rows_forward(x, residual, weight, bias, *settings, EPS, activation, masked)
    kept = (None, weight, bias, mask) if masked else (residual, weight, bias, None)
    rows.rows_backward(x, x, *kept, mean, rstd, *settings, activation, ALL)


def _groups(x: Tensor, number: int, epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[1])
    _, mean, rstd, mask = groups.groups_forward(x, residual, weight, weight, number, EPS, activation, masked)
    kept = (None, weight, weight, mask) if masked else (residual, weight, weight, None)
    groups.groups_backward(x, x, *kept, mean, rstd, number, activation, ALL)


def _channels(x: Tensor, epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[1])
    running = (weight, weight, torch.tensor(0), 0.1)
    _, mean, rstd, mask = channels.channels_forward(
        x, residual, weight, weight, *running, EPS, activation, masked
    )
    kept = (None, weight, weight, mask) if masked else (residual, weight, weight, None)
    channels.channels_backward(x, x, *kept, mean, rstd, activation, ALL)
    given = (residual, weight, weight, weight, weight, EPS, activation)
    channels.channel_affine(x, *given)
    channels.channel_affine_backward(x, x, *given, ALL)
    channels.channel_moments(x)


def launch_all() -> None:
    """Forward and backward of every family."""
    for dtype, epilogue in itertools.product((torch.bfloat16, torch.float32), EPILOGUES):
        for length in (64, 1024, 8192, 20000):
            _rows(torch.empty(48, length, dtype=dtype), [length], True, epilogue)
        _rows(torch.empty(48, 1000, dtype=dtype), [1000], False, epilogue)
        for channels_last in (False, True):
            x = _images((4, 64, 8, 8), dtype, channels_last)
            _rows(x, list(x.shape[1:]), True, epilogue)
            for shape in ((4, 64, 56, 56), (64, 320, 7, 7), (2, 320, 64, 64)):
                x = _images(shape, dtype, channels_last)
                _groups(x, 32, epilogue)
                _groups(x, x.shape[1], epilogue)
                _channels(x, epilogue)
        _channels(torch.empty(4096, 256, dtype=dtype), epilogue)
