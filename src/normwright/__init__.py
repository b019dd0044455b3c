"""The normalization workbench for PyTorch."""

__version__ = "0.1.0"
