"""Which gradients a backward is asked for: the bits of its `wanted`."""

DX, DRESIDUAL, DWEIGHT, DBIAS = 1, 2, 4, 8
