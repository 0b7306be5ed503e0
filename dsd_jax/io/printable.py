"""Text from outside as a terminal may be given it."""

import re

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return text in one line, whose control characters and half surrogate pairs are escapes.

    So a name with a line break, or one that clears a terminal, is shown with `\n` or `\x1b`.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
