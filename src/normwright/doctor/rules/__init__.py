"""One file for each thing that can be wrong; each ends in `RULE`."""
