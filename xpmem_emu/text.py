"""Text that ends up in logs and on terminals: one line that shows all it has.

It imports nothing but what each Python has loaded anyway, for commands that print and are gone.
"""

import re

_UNSEEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Ends of lines, what commands a terminal, and what turns its direction."""
LINE = rf"^[^{_UNSEEN}]*\Z"
"""What text of others has to be, as a pattern."""
UNSEEN = re.compile(f"[{_UNSEEN}]")
TEXT_MAX = 240
"""Characters of a cause in a message."""


def numbered(partid: int) -> str:
    """What a partition is called where only its number is known: p3."""
    return f"p{partid}"


def visible(text: str) -> str:
    """`text` as one line in which what could not be seen is escaped."""
    return UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def text(cause: str) -> str:
    """As much of a cause as a message carries."""
    return visible(cause)[:TEXT_MAX]
