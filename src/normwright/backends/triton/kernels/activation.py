"""The activations that a kernel can fuse, and their derivatives, on a tile of any shape.

The same functions as `backends/activation.py`. Only operations that Triton's interpreter knows are used:
there is no tanh among them, so that it is written out.
"""

import triton
import triton.language as tl

# torch.nn.functional.leaky_relu's default; `backends/activation.py` says it to the other backends.
LEAKY_SLOPE = tl.constexpr(0.01)

_HALF_ROOT = tl.constexpr(0.7071067811865476)  # 1/√2
_DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1/√(2π)

_NEAR = tl.constexpr(0.5)
_FAR = tl.constexpr(44.0)  # from 2·20 on 1 - tanh is below 2^-54


@triton.jit
def constant(like, VALUE: tl.constexpr):
    """A number in a tile's shape and dtype; written out in an expression, it would be a float32 first."""
    return tl.full(like.shape, VALUE, like.dtype)


@triton.jit
def sigmoid(z):
    """1/(1 + exp(-z))."""
    return constant(z, 1.0) / (1.0 + tl.exp(-z))


@triton.jit
def _tanh(z):
    """t/(2 + t) with t = exp(2|z|) - 1, which near zero is a series, because the difference would cancel."""
    twice = 2.0 * tl.abs(z)
    t = tl.where(twice < _NEAR, _expm1_near_zero(twice), tl.exp(twice) - 1.0)
    positive = tl.where(twice < _FAR, t / (2.0 + t), 1.0)
    return tl.where(z < 0, -positive, tl.where(z == z, positive, z))


@triton.jit
def _expm1_near_zero(a):
    """exp(a) - 1 for 0 ≤ a < 1/2: Σ aⁿ/n! up to n = 13, whose next term is below 2^-53 of the sum."""
    total = constant(a, 1.0)
    for n in tl.static_range(13, 1, -1):
        total = 1.0 + total * a * constant(a, 1.0 / n)
    return total * a


@triton.jit
def _normal_distribution(z):
    return 0.5 * (1.0 + tl.math.erf(z * constant(z, _HALF_ROOT)))


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """a(z), in z's dtype; z itself where ACTIVATION is None."""
    if ACTIVATION == "relu":
        y = tl.where(z <= 0, 0.0, z)  # asked so that a NaN passes
    elif ACTIVATION == "leaky_relu":
        y = tl.where(z > 0, z, z * constant(z, LEAKY_SLOPE))
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
        slope = tl.where(z > 0, constant(z, 1.0), constant(z, LEAKY_SLOPE))
    elif ACTIVATION == "silu":
        s = sigmoid(z)
        slope = s * (1.0 + z * (1.0 - s))
    elif ACTIVATION == "gelu":
        slope = _normal_distribution(z) + z * (constant(z, _DENSITY_AT_ZERO) * tl.exp(-0.5 * z * z))
    elif ACTIVATION == "sigmoid":
        s = sigmoid(z)
        slope = s * (1.0 - s)
    else:
        t = _tanh(z)
        slope = 1.0 - t * t
    return slope.to(z.dtype)
