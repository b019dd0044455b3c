"""Calls that between them launch every Triton kernel, with and without what can be left away."""

from __future__ import annotations

import torch
from torch import Tensor

from normwright.backends.gradients import DALPHA, DBIAS, DRESIDUAL, DWEIGHT, DX
from normwright.backends.triton import channel_tanh, channels, groups, lstm_cell, parts, rows
from normwright.backends.triton.parts_plan import plan_of

EPS = 1e-5
ALL = DX | DRESIDUAL | DWEIGHT | DBIAS

# The activation, whether there is a residual, and whether a mask of the activation is kept.
EPILOGUES = ((None, False, False), ("silu", False, False), ("relu", True, True))


def _images(shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    x = torch.empty(shape, dtype=dtype)
    return x.to(memory_format=torch.channels_last) if channels_last else x


def _rows(x: Tensor, axes: int, center: bool, epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[x.dim() - axes :])
    bias = weight if center else None
    forward = rows.rows_forward_masked if masked else rows.rows_forward
    _, moments, *mask = forward(x, residual, weight, bias, axes, center, EPS, activation)
    kept = (None, weight, bias, *mask) if masked else (residual, weight, bias, None)
    rows.rows_backward(x, x, *kept, moments, axes, center, activation, ALL)


def _groups(x: Tensor, number: int, center: bool, epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[1])
    forward = groups.groups_forward_masked if masked else groups.groups_forward
    _, moments, *mask = forward(x, residual, weight, weight, number, center, EPS, activation)
    kept = (None, weight, weight, *mask) if masked else (residual, weight, weight, None)
    groups.groups_backward(x, x, *kept, moments, number, center, activation, ALL)


def _channels(x: Tensor, epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, masked = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[1])
    running = (weight, weight, torch.tensor(0), 0.1)
    forward = channels.channels_forward_masked if masked else channels.channels_forward
    _, moments, *mask = forward(x, residual, weight, weight, *running, EPS, activation)
    kept = (None, weight, weight, *mask) if masked else (residual, weight, weight, None)
    channels.channels_backward(x, x, *kept, moments, activation, ALL)
    given = (residual, weight, weight, weight, weight, EPS, activation)
    channels.channel_affine(x, *given)
    channels.channel_affine_backward(x, x, *given, ALL)
    channels.channel_moments(x)


def _tanh(x: Tensor, axis: int) -> None:
    alpha, weight = torch.tensor(0.5), torch.empty(x.shape[axis])
    channel_tanh.channel_tanh(x, alpha, weight, weight, axis)
    channel_tanh.channel_tanh_backward(x, x, alpha, weight, weight, axis, DX | DALPHA | DWEIGHT | DBIAS)


def _halves(x: Tensor) -> list[list[int]]:
    half = x.shape[0] * x.shape[2:].numel() // 2
    return [[0, 0, half], [1, half, half]]


def _steps(sizes: list[int]) -> list[list[int]]:
    """Of an LSTM: each is a part."""
    return [[step, sum(sizes[:step]), size] for step, size in enumerate(sizes)]


def _parts(x: Tensor, spans: list[list[int]], epilogue: tuple[str | None, bool, bool]) -> None:
    activation, has_residual, _ = epilogue
    residual = torch.empty_like(x) if has_residual else None
    weight = torch.empty(x.shape[1])
    plan, number = plan_of(torch.tensor(spans), len(spans), x), len(spans)
    inputs = (x, residual, weight, weight)
    _, moments = parts.parts_forward(*inputs, *plan, number, EPS, activation)
    parts.parts_backward(x, *inputs, moments, *plan, number, activation, ALL)


def _cell(rows: int, units: int, dtype: torch.dtype) -> None:
    gates, cell = torch.empty(rows, 4 * units, dtype=dtype), torch.empty(rows, units, dtype=dtype)
    lstm_cell.lstm_cell(gates, cell, gates, cell)
    lstm_cell.lstm_cell_backward(cell, cell, cell, gates, cell, cell, gates)


def _each_family(dtype: torch.dtype, epilogue: tuple[str | None, bool, bool]) -> None:
    for length in (64, 4096, 20000):
        _rows(torch.empty(48, length, dtype=dtype), 1, True, epilogue)
    for channels_last in (False, True):
        _rows(_images((4, 64, 8, 8), dtype, channels_last), 3, True, epilogue)
        for shape in ((4, 64, 56, 56), (64, 320, 7, 7)):
            x = _images(shape, dtype, channels_last)
            _groups(x, 32, True, epilogue)
            _channels(x, epilogue)
        _groups(_images((2, 320, 64, 64), dtype, channels_last), 32, True, epilogue)
        _groups(_images((300, 64, 32, 32), dtype, channels_last), 64, True, epilogue)


def launch_all() -> None:
    """Forward and backward of every family: in bfloat16 with each epilogue, in float32 without."""
    for epilogue in EPILOGUES:
        _each_family(torch.bfloat16, epilogue)
    _each_family(torch.float32, EPILOGUES[0])
    _rows(torch.empty(48, 1000), 1, False, EPILOGUES[0])
    for length, dtype in ((8192, torch.float32), (2048, torch.float64), (12288, torch.bfloat16)):
        _rows(torch.empty(48, length, dtype=dtype), 1, True, ("silu", True, False))
    for channels_last in (False, True):
        for shape in ((4, 64, 56, 56), (2, 64, 160, 160)):
            _groups(_images(shape, torch.float32, channels_last), 64, False, EPILOGUES[0])
    _channels(torch.empty(4096, 256), EPILOGUES[0])
    for channels_last, epilogue in ((False, EPILOGUES[0]), (True, ("silu", True, False))):
        x = _images((4, 64, 56, 56), torch.bfloat16, channels_last)
        _parts(x, _halves(x), epilogue)
    _parts(torch.empty(64, 256, 200), [[0, 1, 64 * 200 - 1]], EPILOGUES[0])
    for sizes, gates, dtype in (
        ([128] * 100, 2048, torch.bfloat16),
        (list(range(51, 1, -1)), 400, torch.float32),
    ):
        _parts(torch.empty(sum(sizes), gates, dtype=dtype), _steps(sizes), EPILOGUES[0])
    _tanh(torch.empty(8192, 1024, dtype=torch.bfloat16), -1)
    _tanh(torch.empty(64, 256, 56, 56, dtype=torch.bfloat16), 1)
    _tanh(torch.empty(64, 256, 7, 7), 1)
    _cell(128, 512, torch.bfloat16)
    _cell(128, 100, torch.float32)
