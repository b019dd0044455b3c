"""Folds normalisers with fixed statistics into the layers beside them."""
