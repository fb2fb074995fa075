"""Foreign text made fit to be shown or stored: names of files and classes may hold anything.

Kept out: secrets, which are `redact`'s.
"""

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with every sign that steers a terminal or turns a line around as its escape.

    Those are control signs, line ends, marks of writing direction, and bytes that are not UTF-8.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def storable(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes that are not UTF-8 become `\\xdf` and the like."""
    return _SURROGATES.sub(lambda found: _shown(found[0]), text)


def _shown(sign: str) -> str:
    if sign.isprintable():
        return sign
    if "\udc80" <= sign <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()
