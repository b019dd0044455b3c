"""The activations that a kernel can fuse, and their derivatives, on a tile of any shape.

The same functions as `backends/activation.py`. Only operations that Triton's interpreter knows are used: there
is no tanh among them, so that it is written out.
"""

import triton
import triton.language as tl

# torch.nn.functional.leaky_relu's default; `backends/activation.py` says it to the other backends.
LEAKY_SLOPE = tl.constexpr(0.01)

_HALF_ROOT = tl.constexpr(0.7071067811865476)  # 1/√2
_DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1/√(2π)


@triton.jit
def _divide(a, b):
    """a/b, rounded once; Triton's own quotient of two floats is good to two units in the last place."""
    if b.dtype == tl.float64:
        quotient = a / b
    else:
        quotient = tl.math.div_rn(a, b)
    return quotient


@triton.jit
def sigmoid(z):
    """1/(1 + exp(-z))."""
    return _divide(tl.full(z.shape, 1.0, z.dtype), 1.0 + tl.exp(-z))


@triton.jit
def _tanh(z):
    """tanh. Near zero 1 - exp(-2|z|) would cancel; there the series serves, whose next term is below 1e-9."""
    shrunk = tl.exp(-2.0 * tl.abs(z))
    far = _divide(1.0 - shrunk, 1.0 + shrunk)
    far = tl.where(z < 0, -far, far)
    square = z * z
    series = 62.0 / 2835.0 + square * (-1382.0 / 155925.0 + square * (21844.0 / 6081075.0))
    series = 2.0 / 15.0 + square * (-17.0 / 315.0 + square * series)
    near = z + z * square * (-1.0 / 3.0 + square * series)
    return tl.where(tl.abs(z) < 0.25, near, far)


@triton.jit
def _normal_distribution(z):
    return 0.5 * (1.0 + tl.math.erf(z * _HALF_ROOT))


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """a(z), in z's dtype; z itself where ACTIVATION is None."""
    if ACTIVATION == "relu":
        y = tl.where(z <= 0, 0.0, z)  # asked so that a NaN passes
    elif ACTIVATION == "leaky_relu":
        y = tl.where(z > 0, z, z * LEAKY_SLOPE)
    elif ACTIVATION == "silu":
        y = z * sigmoid(z)
    elif ACTIVATION == "gelu":
        y = z * _normal_distribution(z)
    elif ACTIVATION == "sigmoid":
        y = sigmoid(z)
    elif ACTIVATION == "tanh":
        y = _tanh(z)
    else:
        y = z
    return y


@triton.jit
def derivative(z, ACTIVATION: tl.constexpr):
    """a'(z), in z's dtype."""
    if ACTIVATION == "relu":
        slope = tl.where(z <= 0, 0.0, 1.0)
    elif ACTIVATION == "leaky_relu":
        slope = tl.where(z > 0, 1.0, LEAKY_SLOPE)
    elif ACTIVATION == "silu":
        s = sigmoid(z)
        slope = s * (1.0 + z * (1.0 - s))
    elif ACTIVATION == "gelu":
        slope = _normal_distribution(z) + z * (_DENSITY_AT_ZERO * tl.exp(-0.5 * z * z))
    elif ACTIVATION == "sigmoid":
        s = sigmoid(z)
        slope = s * (1.0 - s)
    else:
        t = _tanh(z)
        slope = 1.0 - t * t
    return slope.to(z.dtype)
