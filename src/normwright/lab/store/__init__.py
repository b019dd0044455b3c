"""The experiment on disk: one SQLite file of runs, and a folder of checkpoints beside it."""

from normwright.lab.store.experiment import Store
from normwright.lab.store.process import Claim, Process

__all__ = ["Claim", "Process", "Store"]
