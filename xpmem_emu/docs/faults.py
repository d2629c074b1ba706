"""The lists in docs/faults.md, made from the declarations.

The page keeps its text; the table behind each marker is replaced.
"""

from xpmem_emu.docs.markdown import refill, table
from xpmem_emu.errors import errno_name
from xpmem_emu.failpoints import POINTS
from xpmem_emu.inject.grammar_values import FIELDS
from xpmem_emu.inject.injections import OTHER_GISTS
from xpmem_emu.inject.rules import MEMBERSHIPS, SIGNATURES


def fill_faults_page(page: str) -> str:
    """`page` with every list as it should be."""
    return refill(page, _tables())


def _tables() -> dict[str, str]:
    return {
        "verdicts": table(
            ("form", "does"),
            [
                (f"`{form}`", signature.gist)
                for verdict, signature in SIGNATURES.items()
                for form in [_form(verdict.value, signature.position, signature.options)]
            ],
        ),
        "memberships": table(
            ("kind", "who still reaches whom"),
            [(f"`{kind.value}`", gist) for kind, gist in MEMBERSHIPS.items()],
        ),
        "others": table(("form", "does"), [(f"`{k}`", v) for k, v in OTHER_GISTS.items()]),
        "failpoints": table(
            ("point", "context", "fails with", "what happens there"),
            [
                (
                    f"`{point.name}`",
                    point.context.value,
                    errno_name(point.errno) if point.errno else "-",
                    point.gist,
                )
                for point in POINTS.values()
            ],
        ),
    }


def _form(verdict: str, position: str, options: tuple[str, ...]) -> str:
    words = [verdict, FIELDS[position].shown] if position else [verdict]
    words += [f"[--{FIELDS[name].option} {FIELDS[name].shown}]" for name in options]
    return " ".join(words)
