"""Which experiments there are: the files of `experiments/`, each of which declares one.

Names are those of the files. They are known without importing any, for completion.
"""

import errno
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from xpmem_emu.errors import KernelError
from xpmem_emu.lab.experiment import Experiment

_FOLDER = Path(__file__).parent / "experiments"


def experiment_names() -> Sequence[str]:
    """All names, sorted."""
    return sorted(path.stem.replace("_", "-") for path in _FOLDER.glob("[a-z]*.py"))


def find_experiment(name: str) -> Experiment:
    """The experiment of that name. Raises KernelError ENOENT, which lists them."""
    if name not in experiment_names():
        known = ", ".join(experiment_names())
        raise KernelError(errno.ENOENT, f"there is no experiment {name!r}", f"one of {known}")
    module = import_module(f"xpmem_emu.lab.experiments.{name.replace('-', '_')}")
    found = module.EXPERIMENT
    assert isinstance(found, Experiment)
    return found


def all_experiments() -> dict[str, Experiment]:
    """All of them by name, in the order of the report."""
    found = {name: find_experiment(name) for name in experiment_names()}
    return dict(sorted(found.items(), key=lambda item: (item[1].place, item[0])))
