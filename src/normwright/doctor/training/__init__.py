"""What is seen of a network in a few steps of training."""
