"""Exchanges one kind of normaliser for another."""
