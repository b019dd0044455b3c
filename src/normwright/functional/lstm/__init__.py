"""A normalised LSTM over packed sequences: fused where nothing looks inside, else in plain operations."""
