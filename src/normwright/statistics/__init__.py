"""Population statistics: what a normaliser should know of all the data."""
