"""Networks on disk: the weights that other people's files hold, and what is written for them."""

WEIGHTS = (".safetensors", ".pt", ".pth")
"""How files end that hold weights."""

PROGRAMS = (".pt2", ".onnx")
"""How files end that hold a network that runs without the code which built it."""
