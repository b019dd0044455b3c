"""What ATen's operators are, in the words of layers, and the function that a user calls for each."""

from __future__ import annotations

from typing import get_args

from normwright.doctor.graph import Kind

#: Operators that change no number: their output holds their input's elements, and all of them.
PASSES = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "view_as"),
        *("squeeze", "unsqueeze", "permute", "transpose", "t", "numpy_T", "movedim", "moveaxis", "swapaxes"),
        *("contiguous", "clone", "to", "_to_copy", "type_as", "alias", "detach", "lift_fresh", "identity"),
    }
)

#: Operators that only look at a tensor, or make one from its shape alone.
CHECKS = frozenset(
    {"sym_size", "sym_numel", "sym_stride", "size", "_assert_tensor_metadata", "_assert_async"}
)

_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "normaliser": ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    "convolution": (
        *("conv1d", "conv2d", "conv3d", "convolution"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    ),
    "linear": ("linear", "bilinear"),
    "recurrent": (
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "lstm_cell",
        "gru_cell",
        "rnn_tanh_cell",
        "rnn_relu_cell",
    ),
    "embedding": ("embedding", "embedding_bag"),
    "attention": ("scaled_dot_product_attention",),
    "activation": (
        *("relu", "relu6", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "selu", "celu", "mish"),
        *("hardtanh", "hardswish", "hardsigmoid", "softplus", "softsign", "prelu", "rrelu", "threshold"),
        *("logsigmoid", "hardshrink", "softshrink"),
    ),
    "dropout": ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    "pooling": tuple(
        f"{how}_pool{axes}d" for how in ("avg", "max", "adaptive_avg", "adaptive_max") for axes in (1, 2, 3)
    ),
    "add": ("add", "sub"),
    "multiply": ("mul", "div"),
    "concatenate": ("cat", "stack"),
}

# As the dispatcher has them below autograd, or under another name than the function's.
_OTHER_NAMES = {
    **dict.fromkeys(
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update"),
        "batch_norm",
    ),
    **dict.fromkeys(
        ("_native_batch_norm_legit", "_native_batch_norm_legit_functional", "_batch_norm_impl_index"),
        "batch_norm",
    ),
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_fused_rms_norm": "rms_norm",
    **dict.fromkeys(("_convolution", "convolution_overrideable", "mkldnn_convolution"), "convolution"),
    "conv_transpose2d.input": "conv_transpose2d",
    **dict.fromkeys(("addmm", "_addmm_activation"), "linear"),
    "native_dropout": "dropout",
    **dict.fromkeys(("feature_dropout",), "dropout2d"),
    "log_sigmoid": "logsigmoid",
    "_prelu_kernel": "prelu",
    **dict.fromkeys(("concat", "concatenate", "hstack", "vstack"), "cat"),
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "max_pool1d_with_indices": "max_pool1d",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ),
        "scaled_dot_product_attention",
    ),
}

# normwright's own, by the beginnings of their names; one operator serves two functions.
_OURS = {
    "rows": "layer_norm",
    "groups": "group_norm",
    "channels": "batch_norm",
    "channel_affine": "batch_norm",
}

_KINDS = {function: kind for kind, functions in _FUNCTIONS.items() for function in functions}
assert set(_FUNCTIONS) <= set(get_args(Kind))
