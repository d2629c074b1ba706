"""Commands of the pages that the test does not run as they stand, each with its reason.

Everything else is run. An entry that no page shows any more fails the test.
"""

NOT_RUN = {
    "make demo": "`.ci/bare` runs it on a bare machine; `xpmem-emu demo` is run here",
    "make test": "this is it",
    "make mutants": "hours; its command is run at small size",
    "make explore": "minutes; its command is run at small size",
    "make soak": "minutes; a few rounds of each loop are tests of their own",
    "make model": "needs spin; `tests/models` runs it at small size",
    "xpmem-emu run pause --on compose": "needs a Docker engine; `make containers` runs it",
    "docker-compose up -d --build": "needs a Docker engine; `make containers` runs it",
    "docker-compose ps": "needs a Docker engine",
    "docker-compose exec console xpmem-emu status": "needs a Docker engine",
    "docker-compose down --volumes": "needs a Docker engine",
    "export XPMEM_EMU_CLUSTER=compose": "needs a Docker engine",
}
"""Not run here. Their programs' names, targets and options are checked."""

ON_CONTAINERS = "containers.md"
"""A page whose commands all need a Docker engine."""

SMALLER = {
    "xpmem-emu up -n 3": "xpmem-emu up -n 3 --image patient",
    "xpmem-emu demo /usr/bin/python3.11": "xpmem-emu demo ./python3.11",
    "xpmem-emu events -f --match 'xpmem:*'": "timeout 3 xpmem-emu events -f --match 'xpmem:*'",
    "xpmem-emu sim run chaos --seeds 0..9999 --jobs 2": "xpmem-emu sim run chaos --seeds 0..0",
    "xpmem-emu sim run chaos-kills --seeds 0..299":
        "xpmem-emu sim run chaos-kills --seeds 0..0",
    "xpmem-emu sim mutants --jobs 2":
        "xpmem-emu sim mutants --only canary --starts 1 --limit 1 --explore -1",
    "xpmem-emu sim mutants chaos --only no_dedup":
        "xpmem-emu sim mutants chaos --only canary --starts 1 --limit 1 --explore -1",
    "xpmem-emu sim mutants --explore -1 -o json":
        "xpmem-emu sim mutants --only canary --starts 1 --limit 1 --explore -1 -o json",
    "xpmem-emu sim gate chaos": "xpmem-emu sim gate chaos --seeds 0..0",
    "xpmem-emu sim explore inflight-race --deviations 2":
        "xpmem-emu sim explore inflight-race --deviations 1",
}  # fmt: skip
"""Run in another way: an endless one for a while, a long one at small size, one that a loaded
machine would fail with more patience."""

CODES = {
    "timeout 3 xpmem-emu events -f --match 'xpmem:*'": 124,
    "xpmem-emu sim explore inflight-race --mutant install_invalid": 1,
}
"""What a command that was run must end with, unless 0, or 1 where the page shows an error."""

ANY_ORDER = ("xpmem-emu demo ./python3.11",)
"""Where lines depend on who answers first."""

PROGRESS = r"(p\d+|\d+ partitions) (started|active|ended)"
"""Lines of slow machines: here stderr is no terminal, where progress is a bar."""

BEFORE = {"faults.md": ["xpmem-emu up -n 3 --image patient"]}
"""What a page takes for granted."""

AFTER = {"faults.md": ["xpmem-emu down"], "keys.md": ["xpmem-emu down"]}
"""What ends what a page leaves."""
