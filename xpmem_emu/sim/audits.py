"""The switch that lets every simulated kernel compare its indices and counts after each step.

An environment variable, so that it reaches clusters that are built deep inside of a campaign, and
its worker processes. It changes nothing of a run but its duration, and that a difference panics.
"""

import os

_VARIABLE = "XPMEM_EMU_AUDITS"


def audits_wanted() -> bool:
    """Whether the environment asks for audits."""
    return bool(os.environ.get(_VARIABLE))


def want_audits() -> None:
    """Ask for audits, in this process and in those that it starts from now on."""
    os.environ[_VARIABLE] = "1"
