"""Random states come back, whatever happens."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from normwright.doctor.random_states import random_states_kept


def states():
    kind, drawn, *rest = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), (kind, drawn.tobytes(), *rest), random.getstate()


def draw():
    return float(torch.rand(1)), float(np.random.rand()), random.random()


@pytest.mark.parametrize("stop", [None, ValueError, KeyboardInterrupt])
def test_states_come_back(stop):
    before = states()
    try:
        with random_states_kept(3):
            draw()
            if stop is not None:
                raise stop
    except (ValueError, KeyboardInterrupt):
        pass
    assert states() == before


def test_inside_all_are_seeded():
    with random_states_kept(3):
        first = draw()
    draw()
    with random_states_kept(3):
        assert draw() == first
