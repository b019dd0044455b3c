"""Acts on a whole network: finds its modules and changes them."""

from __future__ import annotations

from normwright.network.acceleration.accelerate import accelerate, accelerate_with_report
from normwright.network.acceleration.report import BlockRecord, NormaliserRecord, Report
from normwright.network.conversion.convert import convert, convert_with_report
from normwright.network.conversion.report import Conversion, ConversionReport, Gap
from normwright.network.folding.fold import fold, fold_with_report
from normwright.network.folding.report import FoldDifference, FoldRecord, FoldReport, FoldSpeed
from normwright.network.freezing import FreezeRecord, FreezeReport, freeze, freeze_with_report, unfreeze
from normwright.network.walk import find_normalisers, replace_module

__all__ = [
    "BlockRecord",
    "Conversion",
    "ConversionReport",
    "FoldDifference",
    "FoldRecord",
    "FoldReport",
    "FoldSpeed",
    "FreezeRecord",
    "FreezeReport",
    "Gap",
    "NormaliserRecord",
    "Report",
    "accelerate",
    "accelerate_with_report",
    "convert",
    "convert_with_report",
    "find_normalisers",
    "fold",
    "fold_with_report",
    "freeze",
    "freeze_with_report",
    "replace_module",
    "unfreeze",
]
