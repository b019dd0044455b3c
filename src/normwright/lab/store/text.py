"""Text that UTF-8 can hold."""

from __future__ import annotations

import re

# Half of a character, and none of the bytes that Python keeps of a file name that it could not decode.
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def encodable(text: str) -> str:
    """The text as UTF-8 can hold it.

    Where the locale is C, or a name is in another encoding, Python keeps its bytes as surrogates. Those that
    are UTF-8 become what they stand for; any others become U+FFFD.

    Example:
        >>> encodable("n\\udcc3\\udca4ts.py"), encodable("a\\udce4") == "a\\ufffd" == encodable("a\\ud800")
        ('näts.py', True)
    """
    return _HALVES.sub("\ufffd", text).encode(errors="surrogateescape").decode(errors="replace")
