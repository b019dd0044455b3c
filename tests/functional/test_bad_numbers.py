"""Whatever comes in the place of a number of a function or a module is refused by the option's name."""

import numpy as np
import pytest
import torch

from normwright import functional as F
from normwright import nn
from normwright.errors import NormwrightError

x = torch.rand(4, 6, 5, generator=torch.Generator().manual_seed(0))
mask, domains = torch.ones(4, 5, dtype=torch.bool), torch.tensor([0, 1, 0, 1])
nan = float("nan")

NO_NUMBER = ("a", 1j, [1.0], torch.ones(2))
NO_FLOAT = (*NO_NUMBER, None)  # what PyTorch takes for a float, it takes: True, tensors of one element, NaN
NOT_WHOLE = (*NO_FLOAT, 2.5, nan, True, torch.tensor(2.5))
NOT_POSITIVE = (*NO_FLOAT, 0, -1, nan)

# What stands where a number is due, of the options of the functions in training, or where all is training.
BATCH = {"eps": (*NOT_POSITIVE, float("inf")), "momentum": (*NO_NUMBER, nan)}
IN_INFERENCE = {"eps": (*NO_FLOAT, -1, nan), "momentum": NO_NUMBER}


def running():
    return torch.zeros(6), torch.ones(6)


def whitening():
    return torch.zeros(6), torch.eye(2).repeat(3, 1, 1)


def steps(**options):
    statistics = torch.zeros(3, 6), torch.ones(3, 6)
    return F.recurrent_batch_norm(
        x[..., 0], **{"step": 1, **options}, **dict(zip(NAMES, statistics, strict=True))
    )


NAMES = ("running_mean", "running_var")
CALLS = {
    "batch_norm": (lambda **o: F.batch_norm(x, *running(), training=True, **o), BATCH),
    "batch_renorm": (
        lambda **o: F.batch_renorm(x, *running(), training=True, **o),
        {**BATCH, "r_max": (*NO_FLOAT, nan, 0.5, True), "d_max": (*NO_FLOAT, nan, -1, True)},
    ),
    "dynamic_tanh": (lambda **o: F.dynamic_tanh(x, **o), {"alpha": (*NO_FLOAT, True), "axis": NOT_WHOLE}),
    "filter_response_norm": (lambda **o: F.filter_response_norm(x, **o), {"eps": (*NOT_POSITIVE, True)}),
    "ghost_batch_norm": (
        lambda **o: F.ghost_batch_norm(x, *running(), training=True, **{"ghost_size": 2, **o}),
        {**BATCH, "ghost_size": (*NOT_WHOLE, 0)},
    ),
    "group_norm": (
        lambda **o: F.group_norm(x, **{"num_groups": 2, **o}),
        {"eps": NO_FLOAT, "num_groups": (*NOT_WHOLE, 0, -1)},
    ),
    "instance_norm": (lambda **o: F.instance_norm(x, **o), {"eps": NO_FLOAT, "momentum": NO_FLOAT}),
    "instance_norm, moving": (
        lambda **o: F.instance_norm(x, *running(), **o),
        {"eps": NO_FLOAT, "momentum": NO_FLOAT},
    ),
    "layer_norm": (lambda **o: F.layer_norm(x, (5,), **o), {"eps": NO_FLOAT}),
    "local_response_norm": (
        lambda **o: F.local_response_norm(x, **{"size": 3, **o}),
        {"size": (*NOT_WHOLE, 0, -1), "alpha": NO_FLOAT[2:], "beta": NO_FLOAT, "k": NO_FLOAT},
    ),
    "masked_batch_norm": (lambda **o: F.masked_batch_norm(x, mask, *running(), training=True, **o), BATCH),
    "maxout": (lambda **o: F.maxout(x, **{"pieces": 2, **o}), {"pieces": (*NOT_WHOLE, 0), "axis": NOT_WHOLE}),
    "recurrent_batch_norm": (lambda **o: steps(training=True, **o), {**BATCH, "step": (*NOT_WHOLE, -1)}),
    "rms_norm": (lambda **o: F.rms_norm(x, (5,), **o), {"eps": NO_NUMBER}),
    "split_batch_norm": (
        lambda **o: F.split_batch_norm(x, domains, [(*running(), None)] * 2, training=True, **o),
        BATCH,
    ),
    "split_batch_norm, one domain": (
        lambda **o: F.split_batch_norm(x, **{"domains": 0, **o}, running=[(*running(), None)], training=True),
        {**BATCH, "domains": (*NO_FLOAT[:3], None, nan, True, 0.0, -1, 1)},
    ),
    "standardise_weight": (
        lambda **o: F.standardise_weight(x, **o),
        {"eps": (*NOT_POSITIVE, True), "dim": (*NOT_WHOLE, -1, 3)},
    ),
    "sync_batch_norm": (lambda **o: F.sync_batch_norm(x, *running(), training=True, **o), BATCH),
    "weight_norm": (
        lambda **o: F.weight_norm(x, torch.ones(4, 1, 1), **o),
        {"dim": (*NO_NUMBER, 2.5, nan, True, 3)},
    ),
    "whitening_norm": (
        lambda **o: F.whitening_norm(x, *whitening(), training=True, **{"group_size": 2, **o}),
        {**BATCH, "group_size": (*NOT_WHOLE, 0), "iterations": (*NOT_WHOLE, 0)},
    ),
    "batch_norm in inference": (lambda **o: F.batch_norm(x, *running(), **o), IN_INFERENCE),
    "batch_renorm in inference": (lambda **o: F.batch_renorm(x, *running(), **o), IN_INFERENCE),
    "ghost_batch_norm in inference": (
        lambda **o: F.ghost_batch_norm(x, *running(), ghost_size=2, **o),
        IN_INFERENCE,
    ),
    "instance_norm in inference": (
        lambda **o: F.instance_norm(x, *running(), use_input_stats=False, **o),
        {"eps": NO_FLOAT, "momentum": NO_FLOAT},
    ),
    "masked_batch_norm in inference": (
        lambda **o: F.masked_batch_norm(x, mask, *running(), **o),
        IN_INFERENCE,
    ),
    "recurrent_batch_norm in inference": (steps, IN_INFERENCE),
    "split_batch_norm in inference": (
        lambda **o: F.split_batch_norm(x, domains, [(*running(), None)] * 2, **o),
        IN_INFERENCE,
    ),
    "whitening_norm in inference": (
        lambda **o: F.whitening_norm(x, *whitening(), group_size=2, **o),
        IN_INFERENCE,
    ),
    "nn.BatchNorm1d": (lambda **o: nn.BatchNorm1d(6, **o)(x), BATCH),
    "nn.BatchNormLSTM": (
        lambda **o: nn.BatchNormLSTM(5, 3, **o),
        {
            "eps": (*NO_FLOAT, -1, nan, True),
            "momentum": (*NO_NUMBER, -1, 1.5, nan, True),
            "max_length": (*NOT_WHOLE, 0),
            "gain": (*NO_FLOAT, True),
        },
    ),
    "nn.BatchRenorm1d": (
        lambda **o: nn.BatchRenorm1d(6, **o)(x),
        {**BATCH, "r_max": (*NO_FLOAT, nan, 0.5, True), "d_max": (*NO_FLOAT, nan, -1, True)},
    ),
    "nn.DynamicTanh": (
        lambda **o: nn.DynamicTanh(5, **o)(x),
        {"alpha": (*NO_FLOAT, True), "axis": NOT_WHOLE},
    ),
    "nn.FilterResponseNorm": (lambda **o: nn.FilterResponseNorm(6, **o), {"eps": (*NOT_POSITIVE, True)}),
    "nn.GhostBatchNorm1d": (
        lambda **o: nn.GhostBatchNorm1d(6, **{"ghost_size": 2, **o})(x),
        {**BATCH, "ghost_size": (*NOT_WHOLE, 0)},
    ),
    "nn.GroupNorm": (lambda **o: nn.GroupNorm(2, 6, **o)(x), {"eps": NO_FLOAT}),
    "nn.InstanceNorm1d": (lambda **o: nn.InstanceNorm1d(6, **o)(x), {"eps": NO_FLOAT}),
    "nn.LayerNorm": (lambda **o: nn.LayerNorm(5, **o)(x), {"eps": NO_FLOAT}),
    "nn.LayerNormLSTM": (lambda **o: nn.LayerNormLSTM(5, 3, **o), {"eps": (*NO_FLOAT, -1, nan, True)}),
    "nn.LocalResponseNorm": (lambda **o: nn.LocalResponseNorm(3, **o)(x), {"beta": NO_FLOAT, "k": NO_FLOAT}),
    "nn.MaskedBatchNorm1d": (lambda **o: nn.MaskedBatchNorm1d(6, **o)(x, mask), BATCH),
    "nn.Maxout": (lambda **o: nn.Maxout(**o)(x), {"pieces": (*NOT_WHOLE, 0), "axis": NOT_WHOLE}),
    "nn.RMSNorm": (lambda **o: nn.RMSNorm(5, **o)(x), {"eps": NO_NUMBER}),
    "nn.RecurrentBatchNorm": (
        lambda **o: nn.RecurrentBatchNorm(6, **{"max_length": 3, **o}),
        {"eps": (*NO_FLOAT, -1, nan, True), "momentum": (*NO_NUMBER, -1, 1.5, nan, True), "gain": NO_FLOAT},
    ),
    "nn.RecurrentBatchNorm at a step": (
        lambda **o: nn.RecurrentBatchNorm(6, max_length=3)(x[..., 0], **{"step": 1, **o}),
        {"step": (*NOT_WHOLE, -1)},
    ),
    "nn.SplitBatchNorm1d": (
        lambda **o: nn.SplitBatchNorm1d(6, **o)(x),
        {**BATCH, "domains": (*NOT_WHOLE, 0)},
    ),
    "nn.SyncBatchNorm": (lambda **o: nn.SyncBatchNorm(6, **o)(x), BATCH),
    "nn.WeightStandardization": (
        lambda **o: nn.WeightStandardization(**o)(x),
        {"eps": (*NOT_POSITIVE, True), "dim": (*NOT_WHOLE, -1, 3)},
    ),
    "nn.WhiteningNorm1d": (
        lambda **o: nn.WhiteningNorm1d(6, **{"group_size": 2, **o})(x),
        {**BATCH, "iterations": (*NOT_WHOLE, 0)},
    ),
}
CASES = [(name, option) for name, (_, options) in CALLS.items() for option in options]


@pytest.mark.parametrize(("name", "option"), CASES)
def test_what_is_no_such_number(name, option):
    call, options = CALLS[name]
    call()
    for value in options[option]:
        with pytest.raises((NormwrightError, TypeError), match=rf"\b{WORDS.get(option, option)}\b") as found:
            call(**{option: value})
        told = found.type is TypeError and str(found.value).startswith(f"{name}(): argument '{option}'")
        assert told or isinstance(found.value, NormwrightError), f"{value!r}: {found.value!r}"


# The options that messages call otherwise: PyTorch's words.
WORDS = {"num_groups": "num_groups|num groups", "size": "size|kernel size", "domains": "domains|domain"}


def test_every_function_is_here():
    assert set(F.__all__) <= {name.split(",")[0] for name in CALLS}


@pytest.mark.parametrize("name", ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"])
def test_what_pytorch_takes_for_a_float(name):
    call, _ = CALLS[name]
    for eps in (True, torch.tensor(0.5), torch.tensor([0.5]), x.numpy().mean()):
        assert torch.equal(call(eps=eps), call(eps=float(eps)))


@pytest.mark.parametrize("whole", [np.int64(2), np.int32(2), torch.tensor(2)], ids=repr)
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("dynamic_tanh", "axis"),
        ("ghost_batch_norm", "ghost_size"),
        ("group_norm", "num_groups"),
        ("local_response_norm", "size"),
        ("maxout", "pieces"),
        ("recurrent_batch_norm", "step"),
        ("whitening_norm", "group_size"),
        ("whitening_norm", "iterations"),
        ("nn.GhostBatchNorm1d", "ghost_size"),
        ("nn.Maxout", "pieces"),
        ("nn.RecurrentBatchNorm", "max_length"),
        ("nn.SplitBatchNorm1d", "domains"),
        ("nn.WhiteningNorm1d", "group_size"),
        ("nn.WhiteningNorm1d", "iterations"),
    ],
)
def test_what_pytorch_takes_for_an_int(name, option, whole):
    call, _ = CALLS[name]
    ours, expected = call(**{option: whole}), call(**{option: 2})
    if isinstance(ours, torch.nn.Module):
        assert repr(ours) == repr(expected)
    else:
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("whole", [np.int64(2), torch.tensor(2)], ids=repr)
def test_a_domain_of_any_whole_number(whole):
    module = nn.SplitBatchNorm1d(6, domains=3)
    module(x, domains=int(whole))
    other = nn.SplitBatchNorm1d(6, domains=3)
    other(x, domains=whole)
    assert torch.equal(module.running_mean_2, other.running_mean_2)
