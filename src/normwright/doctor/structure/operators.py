"""What ATen's operators are, in the words of layers, and the function that a user calls for each."""

from __future__ import annotations

from normwright.doctor.structure.graph import Kind

#: Their output holds all of their input's elements, and changes none.
PASSES = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_as"),
        *("squeeze", "unsqueeze", "permute", "transpose", "t", "numpy_T", "movedim", "moveaxis", "swapaxes"),
        *("contiguous", "clone", "to", "_to_copy", "type_as", "alias", "detach", "lift_fresh", "identity"),
    }
)

#: They look at a tensor, or make one from its shape alone.
CHECKS = frozenset(
    {
        *("sym_size", "sym_numel", "sym_stride", "size", "_assert_tensor_metadata", "_assert_async"),
        *("empty_like", "zeros_like", "ones_like", "full_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full"),
    }
)

_FUNCTIONS: dict[Kind, tuple[str, ...]] = {
    "normaliser": ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    "convolution": (
        *("conv1d", "conv2d", "conv3d", "convolution"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    ),
    "linear": ("linear", "bilinear"),
    "recurrent": tuple(
        f"{cell}{one_step}" for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu") for one_step in ("", "_cell")
    ),
    "embedding": ("embedding", "embedding_bag"),
    "attention": ("scaled_dot_product_attention",),
    "activation": (
        *("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "selu", "celu", "mish"),
        *("hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign", "prelu", "rrelu", "threshold"),
        *("logsigmoid", "hardshrink", "softshrink"),
    ),
    "dropout": ("dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout"),
    "pooling": tuple(
        f"{how}_pool{axes}d" for how in ("avg", "max", "adaptive_avg", "adaptive_max") for axes in (1, 2, 3)
    ),
    "add": ("add", "sub"),
    "multiply": ("mul", "div"),
    "concatenate": ("cat", "stack"),
}

# As the dispatcher has them below autograd, or where a function has another name than its operator.
_BECOMES: dict[str, tuple[str, ...]] = {
    "batch_norm": (
        *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional"),
        *("_batch_norm_with_update", "_batch_norm_impl_index", "cudnn_batch_norm", "miopen_batch_norm"),
    ),
    "layer_norm": ("native_layer_norm",),
    "group_norm": ("native_group_norm",),
    "rms_norm": ("_fused_rms_norm",),
    "convolution": ("_convolution", "convolution_overrideable", "mkldnn_convolution"),
    "linear": ("addmm", "_addmm_activation"),
    "lstm": ("mkldnn_rnn_layer", "_thnn_fused_lstm_cell"),
    "gru": ("_thnn_fused_gru_cell",),
    "scaled_dot_product_attention": (
        *("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"),
        *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
    ),
    "logsigmoid": ("log_sigmoid", "log_sigmoid_forward"),
    "rrelu": ("rrelu_with_noise",),
    "prelu": ("_prelu_kernel",),
    "dropout": ("native_dropout",),
    "dropout2d": ("feature_dropout",),
    "max_pool1d": ("max_pool1d_with_indices",),
    "max_pool2d": ("max_pool2d_with_indices",),
    "max_pool3d": ("max_pool3d_with_indices",),
    "adaptive_avg_pool2d": ("_adaptive_avg_pool2d",),
    "adaptive_avg_pool3d": ("_adaptive_avg_pool3d",),
    "softmax": ("_softmax",),
    "log_softmax": ("_log_softmax",),
    "cat": ("concat", "concatenate", "hstack", "vstack"),
    "sub": ("subtract", "rsub"),
    "mul": ("multiply",),
    "div": ("divide", "true_divide"),
}

# normwright's own: by what an operator's name begins with, as one for each memory access pattern serves all
# the forms of a function.
_OURS = {
    "rows": "layer_norm",
    "groups": "group_norm",
    "channels": "batch_norm",
    "parts": "batch_norm",
    "channel_affine": "batch_norm",
}

_FUNCTION_OF = {operator: function for function, operators in _BECOMES.items() for operator in operators}
_KIND_OF = {function: kind for kind, functions in _FUNCTIONS.items() for function in functions}


def function_of(operator: str) -> str:
    """The function that a user calls for an operator; in-place or not makes no difference.

    Args:
        operator: with its namespace, such as "aten.relu_".
    Example:
        >>> function_of("aten.relu_"), function_of("normwright.groups_forward"), function_of("aten.addmm")
        ('relu', 'group_norm', 'linear')
    """
    space, _, name = operator.rpartition(".")
    if space == "normwright":
        return next((function for start, function in _OURS.items() if name.startswith(f"{start}_")), name)
    name = name if name.startswith("__") else name.removesuffix("_")
    return _FUNCTION_OF.get(name, name)


def kind_of(function: str) -> Kind:
    """What a function is.

    Example:
        >>> kind_of("hardswish"), kind_of("softmax")
        ('activation', 'other')
    """
    return _KIND_OF.get(function, "other")
