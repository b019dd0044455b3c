"""Measurements on a GPU: times by device events, as fractions of the device's copy bandwidth."""
