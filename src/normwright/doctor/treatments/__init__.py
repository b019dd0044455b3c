"""Fixes that are made on a copy."""
