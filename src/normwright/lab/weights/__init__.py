"""Networks on disk: the weights that other people's files hold, and what is written for them."""
