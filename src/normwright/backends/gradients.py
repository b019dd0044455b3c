"""Which gradients a backward is asked for: the bits of its `wanted`."""

DX, DRESIDUAL, DWEIGHT, DBIAS, DALPHA = 1, 2, 4, 8, 16
ALL = DX + DRESIDUAL + DWEIGHT + DBIAS + DALPHA
