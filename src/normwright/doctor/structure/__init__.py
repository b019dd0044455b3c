"""What a network is made of, and what feeds what."""
