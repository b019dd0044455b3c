"""Networks whose parameters are still to come: lazy modules make them of the first batch."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from normwright.errors import OptionError


def check_is_all_there(network: nn.Module, purpose: str) -> None:
    """Raises OptionError where a module of the network is lazy and has no parameters as yet.

    Args:
        network: stays as it is.
        purpose: what the network is to be, as in "examined".
    """
    for name, module in network.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            which = f"its module {name!r}" if name else "it"
            raise OptionError(
                f"the network must have its parameters to be {purpose}, but {which} is lazy and has none as "
                "yet: run the network on a batch first"
            )
