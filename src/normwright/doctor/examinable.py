"""Whether a network can be looked into at all: it must run in Python, and have its parameters."""

from __future__ import annotations

import torch
from torch import nn

from normwright.errors import OptionError
from normwright.network.copying import check_can_be_copied
from normwright.network.lazy import check_is_all_there


def check_can_be_examined(network: nn.Module) -> None:
    """Raises OptionError where a network cannot be copied, hides its calls, or is not yet all there."""
    check_can_be_copied(network)
    check_is_all_there(network, "examined")
    for name, module in network.named_modules():
        which = f"its module {name!r}" if name else "it"
        if isinstance(module, torch.jit.ScriptModule):
            raise OptionError(
                f"the network must run in Python to be examined, but {which} is compiled by torch.jit, which "
                "hides what it calls: put the module there that it was scripted or traced from"
            )
