"""Data sets: published ones, folders of images and the user's own, in memory and checked."""

from normwright.lab.data.dataset import Data
from normwright.lab.data.load import load

__all__ = ["Data", "load"]
