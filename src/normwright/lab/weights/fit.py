"""Loads the weights of a checkpoint into the network that a function built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from normwright.errors import CheckpointError
from normwright.lab.weights.read import Weights

_SHOWN = 10


def fit(network: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Loads all weights, or none that could be taken for all.

    A first word that every name of the checkpoint has and no name of the network is left off, as often as
    there is one: `module.` of DistributedDataParallel, `_orig_mod.` of torch.compile, `model.` of a trainer.

    Args:
        network: gets the weights; where they do not fit, it is not to be used.
        weights: of the same network.
    Returns:
        Sentences for the user: what was done beyond loading.
    Raises:
        CheckpointError: names are missing or unexpected, shapes differ, or numbers have no place in the
            network's dtype.
    """
    own = network.state_dict()
    tensors, prefix = _without_prefix(weights.tensors, own)
    differ = [
        f"{name} {tuple(tensor.shape)} where the network has {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and isinstance(own[name], Tensor) and tensor.shape != own[name].shape
    ]
    # By torch, whose modules know their older names; it would raise at shapes that differ, so these stay out.
    fitting = {name: tensor for name, tensor in tensors.items() if name not in own or not differ}
    result = network.load_state_dict(fitting, strict=False)
    missing = [name for name in result.missing_keys if name not in tensors and not _tied(own, name, tensors)]
    faults = [
        *_listed("missing", missing),
        *_listed("unexpected", sorted(result.unexpected_keys)),
        *_listed("of another shape", differ),
        *_listed("beyond what the network's dtype holds", [] if differ else _lost(tensors, own)),
    ]
    if faults:
        raise CheckpointError(
            f"{weights.path} must be a checkpoint of the network that the function builds, but is of "
            f"another:\n{chr(10).join(faults)}\nname the function that built it, with the settings it had"
        )
    return tuple(_notes(weights, prefix, tensors, own))


def _without_prefix(
    tensors: Mapping[str, Tensor], own: Mapping[str, object]
) -> tuple[dict[str, Tensor], str]:
    taken = ""
    left = dict(tensors)
    while True:
        words = {name.partition(".")[0] for name in left}
        word = next(iter(words))
        if len(words) > 1 or word in left or any(name.partition(".")[0] == word for name in own):
            return left, taken
        left = {name.partition(".")[2]: tensor for name, tensor in left.items()}
        taken += f"{word}."


def _tied(own: Mapping[str, Tensor], name: str, given: Iterable[str]) -> bool:
    """Whether the weight is one with another that the checkpoint holds: some savers keep one name of them."""
    if not isinstance(own.get(name), Tensor):
        return False
    return any(
        isinstance(other := own.get(held), Tensor)
        and other.data_ptr() == own[name].data_ptr()
        and other.shape == own[name].shape
        and other.numel() > 0
        for held in given
    )


def _lost(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """The weights whose finite numbers overflowed when they were loaded."""
    return [
        f"{name} {tensor.dtype} where the network has {own[name].dtype}"
        for name, tensor in tensors.items()
        if name in own and isinstance(own[name], Tensor) and _is_lost(tensor, own[name])
    ]


def _is_lost(tensor: Tensor, own: Tensor) -> bool:
    if own.dtype == tensor.dtype or not (tensor.is_floating_point() and own.is_floating_point()):
        return False
    return bool((_finite(tensor) & ~_finite(own.cpu())).any())


def _finite(tensor: Tensor) -> Tensor:
    wide = tensor.float() if tensor.element_size() == 1 else tensor  # PyTorch asks no float of eight bits
    return wide.isfinite()


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f", and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"  {what} ({len(names):,}): {', '.join(names[:_SHOWN])}{more}"]


def _notes(
    weights: Weights, prefix: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> Iterable[str]:
    if weights.left_out:
        yield f"Of {weights.path}, only the state dict was read, not {', '.join(weights.left_out)}."
    if prefix:
        yield f"The checkpoint's names begin with {prefix!r}, which was left off."
    for had, has in sorted(
        {
            (str(tensor.dtype), str(own[name].dtype))
            for name, tensor in tensors.items()
            if name in own and tensor.dtype != own[name].dtype
        }
    ):
        yield f"Weights of {had} were loaded into a network of {has}."
