"""What normalisers take, keep and give, in either mode."""
