"""Batches of theirs; `gated` waits in the second one for the file `gate` to go."""

import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

here = Path(__file__).parent
generator = torch.Generator().manual_seed(0)
X, Y = torch.randn(40, 1, 8, 8, generator=generator), torch.arange(40) % 10


def loader():
    return DataLoader(TensorDataset(X, Y), batch_size=16)


def one():
    return DataLoader(TensorDataset(X, Y), batch_size=40)


def named():
    for x, y in zip(X.split(16), Y.split(16), strict=True):
        yield {"pixel_values": x, "labels": y}


def unlabelled():
    yield from X.split(16)


def empty():
    return DataLoader(TensorDataset(X[:0], Y[:0]), batch_size=16)


def small():
    yield X[:16, :, :4], Y[:16]


def gated():
    yield X[:16], Y[:16]
    (here / "waiting").touch()
    while (here / "gate").exists():
        time.sleep(0.005)
    yield X[16:], Y[16:]
