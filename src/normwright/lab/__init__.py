"""Experiments: data, networks, training, and the comparison of normalisers."""
