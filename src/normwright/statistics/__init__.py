"""Population statistics: what a normaliser should know of all the data."""

from normwright.statistics.accumulate import accumulate
from normwright.statistics.count_once import Counting, count_once

__all__ = ["Counting", "accumulate", "count_once"]
