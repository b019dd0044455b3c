"""The signatures of constructors that hand on what they are given."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar, cast

Class = TypeVar("Class", bound=type)


def full_signature(cls: Class) -> Class:
    """Says of a class whose constructor takes `*args` and `**kwargs` for the class above what these may be.

    What is handed on serves every version of PyTorch; what reads a signature (`help()`, an editor, what makes
    modules of configuration files) sees the parameters of the class above, and the class's own keywords.

    Example:
        >>> class Above:
        ...     def __init__(self, features, eps=1e-5): ...
        >>> @full_signature
        ... class Below(Above):
        ...     def __init__(self, *args, cap=3, **kwargs): ...
        >>> inspect.signature(Below)
        <Signature (features, eps=1e-05, *, cap=3)>
    """
    constructor, base = vars(cls)["__init__"], cast(Any, cls.__mro__[1])
    above = inspect.signature(base.__init__)
    own = inspect.signature(constructor, eval_str=True).parameters.values()
    keywords = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    parameters = {parameter.name: parameter for parameter in (*above.parameters.values(), *keywords)}
    in_order = sorted(parameters.values(), key=lambda parameter: parameter.kind)
    constructor.__signature__ = above.replace(parameters=in_order)
    return cls
