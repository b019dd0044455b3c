"""The learning rates at which a network trains, with its normalisers and without."""
