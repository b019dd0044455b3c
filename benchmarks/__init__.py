"""Measurements: ratios within one run, on this machine. Results stand in RESULTS.md."""
