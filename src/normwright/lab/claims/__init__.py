"""What the literature says about normalisation: one file per claim, each ending in its `CLAIM`."""
