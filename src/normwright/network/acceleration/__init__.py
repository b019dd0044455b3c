"""Makes the normalisers of a network fused ones, and computes with them what follows them."""
