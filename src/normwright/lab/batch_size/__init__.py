"""The batch size from which on training is no faster, and how noisy its moments are."""
