"""Hypothesis strategies for wire messages, read off their own type declarations."""

from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Meta, Struct

WORD = (1 << 64) - 1
"""MessagePack carries integers up to here."""


@cache  # asked for by every example, and each would be built and checked anew
def structs(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Instances of `kind` with every field within its declared bounds."""
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a declared field type."""
    meta = Meta()
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)
    if get_origin(hint) is list:
        return st.lists(values(get_args(hint)[0]), max_size=min(meta.max_length or 5, 5))
    if get_origin(hint) is tuple:
        return st.tuples(*map(values, get_args(hint)))
    if hint is bool:
        return st.booleans()
    if hint is int:
        return integers(meta)
    if hint is str and meta.pattern:
        return st.from_regex(meta.pattern).filter(lambda text: len(text) <= (meta.max_length or 0))
    if hint is str:
        return st.text(max_size=meta.max_length)
    return structs(hint)


def integers(meta: Meta) -> st.SearchStrategy[int]:
    """Integers within the bounds, which are reached often."""
    low = meta.gt + 1 if meta.gt is not None else meta.ge
    high = meta.lt - 1 if meta.lt is not None else meta.le
    low = -(1 << 63) if low is None else int(low)
    high = WORD if high is None else int(high)
    return st.one_of(st.sampled_from([low, high]), st.integers(low, high))
