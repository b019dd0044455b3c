"""The page's colours: one fixed colour and mark per normaliser, in every picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normwright.errors import unknown_name

INK = "#1c2024"
MUTED = "#59616b"
RULE = "#e2e5e9"
PAPER = "#ffffff"

# Of small text on its ground, by WCAG 2 (AA). Of black and white one has √21 = 4.58 on every colour.
_ENOUGH = 4.5


@dataclass(frozen=True)
class Style:
    """How a normaliser is named and drawn; the marker tells lines apart where colour cannot."""

    label: str
    colour: str
    marker: str


# The seven of old have Okabe & Ito's palette (jfly.uni-koeln.de/color), which eight in a hundred men also
# tell apart. Its yellow is left out (too pale on white); plain grey stands for "no normaliser". No palette
# has sixteen colours that all can tell apart: the others have Tol's (personal.sron.nl/~pault), darker ones,
# and each its own mark.
STYLES = {
    "none": Style("none", "#4d5560", "x"),
    "batch": Style("batch", "#0072b2", "circle"),
    "layer": Style("layer", "#e69f00", "square"),
    "group": Style("group", "#009e73", "diamond"),
    "instance": Style("instance", "#cc79a7", "triangle-up"),
    "rms": Style("RMS", "#d55e00", "triangle-down"),
    "lrn": Style("LRN", "#56b4e9", "star"),
    "renorm": Style("renorm", "#332288", "cross"),
    "ghost": Style("ghost", "#44aa99", "pentagon"),
    "whitening": Style("whitening", "#882255", "hexagram"),
    "frn": Style("FRN", "#999933", "bowtie"),
    "dyt": Style("DyT", "#aa4499", "diamond-tall"),
    "weight": Style("weight", "#117733", "hourglass"),
    "ws": Style("WS + group", "#6699cc", "hexagon"),
    "recurrent-batch": Style("recurrent batch", "#661100", "triangle-right"),
    "recurrent-layer": Style("recurrent layer", "#bb5566", "triangle-left"),
}


def style_of(norm: str) -> Style:
    """The fixed style of a normaliser.

    Raises:
        OptionError: the palette has no such normaliser.
    Example:
        >>> style_of("batch").colour
        '#0072b2'
    """
    if norm not in STYLES:
        raise unknown_name("normaliser", norm, STYLES)
    return STYLES[norm]


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def translucent(colour: str, alpha: float) -> str:
    """The colour as CSS rgba.

    Example:
        >>> translucent("#0072b2", 0.5)
        'rgba(0, 114, 178, 0.5)'
    """
    red, green, blue = _channels(colour)
    return f"rgba({red}, {green}, {blue}, {alpha:g})"


def mix(first: str, second: str, share: float) -> str:
    """A colour on the straight line between two: `share` of the second.

    Example:
        >>> mix("#000000", "#ffffff", 0.5)
        '#808080'
    """
    pairs = zip(_channels(first), _channels(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def along(scale: Sequence[str], position: float) -> str:
    """The colour at `position` (0 to 1) of a scale of equally spaced colours.

    Example:
        >>> along(("#000000", "#ffffff", "#ff0000"), 0.75)
        '#ff8080'
    """
    place = min(max(position, 0.0), 1.0) * (len(scale) - 1)
    below = min(int(place), len(scale) - 2)
    return mix(scale[below], scale[below + 1], place - below)


def ink_on(colour: str) -> str:
    """Dark or white text, whichever has the higher contrast on the colour (WCAG 2 luminance).

    On middle tones, where neither has the 4.5 that is asked of small text, black or white has.

    Example:
        >>> ink_on("#ffffff"), ink_on("#000000"), ink_on("#5589af")
        ('#1c2024', '#ffffff', '#000000')
    """
    ink = max((INK, PAPER), key=lambda ink: contrast(ink, colour))
    if contrast(ink, colour) >= _ENOUGH:
        return ink
    return max(("#000000", PAPER), key=lambda ink: contrast(ink, colour))


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two colours, 1 to 21.

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    darker, lighter = sorted((_luminance(first), _luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    def linear(channel: int) -> float:
        share = channel / 255
        return float(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)

    red, green, blue = map(linear, _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
