"""Weights by length and direction, and standardised: their invariants."""

import numpy as np

from normwright.reference import standardise_weight, weight_norm

V, G = np.random.default_rng(3).normal(1, 2, (4, 3, 2)), np.arange(1.0, 5)


def test_the_length_is_g_and_the_direction_v_s():
    w = weight_norm(V, G)
    np.testing.assert_allclose(np.sqrt((w**2).sum(axis=(1, 2))), G, rtol=1e-14)
    np.testing.assert_allclose(weight_norm(5 * V, G), w, rtol=1e-14)
    lengths = np.sqrt((V**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(weight_norm(V, lengths), V, rtol=1e-14)


def test_a_standardised_weight_has_mean_0_and_variance_1_for_each_output():
    w = standardise_weight(V, eps=0.0)
    np.testing.assert_allclose(w.mean(axis=(1, 2)), 0, atol=1e-15)
    np.testing.assert_allclose(w.var(axis=(1, 2)), 1, rtol=1e-14)
    np.testing.assert_allclose(standardise_weight(3 * V + 2, eps=0.0), w, rtol=1e-12)
    assert np.isfinite(standardise_weight(np.ones((2, 3)))).all()
