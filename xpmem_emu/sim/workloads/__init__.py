"""What tasks do in a simulated run: each module writes one kind of program into a plan.

A workload is a function (script) -> None that appends operations. It draws from a stream of its
own and never looks at a running kernel, so a plan is known before its run begins.
"""

from collections.abc import Callable, Mapping

from xpmem_emu.sim.workloads.borders import borders
from xpmem_emu.sim.workloads.calls import calls
from xpmem_emu.sim.workloads.churn import churn
from xpmem_emu.sim.workloads.collective import collective
from xpmem_emu.sim.workloads.counters import counters
from xpmem_emu.sim.workloads.crowd import crowd
from xpmem_emu.sim.workloads.devices import devices
from xpmem_emu.sim.workloads.exits import exits
from xpmem_emu.sim.workloads.extremes import extremes
from xpmem_emu.sim.workloads.files import files
from xpmem_emu.sim.workloads.forks import forks
from xpmem_emu.sim.workloads.handover import handover
from xpmem_emu.sim.workloads.held import crossed, overdue, stranded, unhurried
from xpmem_emu.sim.workloads.kills import kills
from xpmem_emu.sim.workloads.meetings import meetings
from xpmem_emu.sim.workloads.mmus import mmus, mmus_alone
from xpmem_emu.sim.workloads.mspec import mspec
from xpmem_emu.sim.workloads.pressure import pressure
from xpmem_emu.sim.workloads.private import private
from xpmem_emu.sim.workloads.race import race
from xpmem_emu.sim.workloads.rights import rights
from xpmem_emu.sim.workloads.rush import rush
from xpmem_emu.sim.workloads.script import Script
from xpmem_emu.sim.workloads.sharing import sharing
from xpmem_emu.sim.workloads.storm import storm
from xpmem_emu.sim.workloads.transfers import transfers
from xpmem_emu.sim.workloads.window import window
from xpmem_emu.sim.workloads.wrongs import wrongs

WORKLOADS: Mapping[str, Callable[[Script], None]] = {
    "sharing": sharing,
    "collective": collective,
    "churn": churn,
    "storm": storm,
    "pressure": pressure,
    "counters": counters,
    "exits": exits,
    "race": race,
    "handover": handover,
    "calls": calls,
    "kills": kills,
    "borders": borders,
    "rights": rights,
    "private": private,
    "files": files,
    "extremes": extremes,
    "devices": devices,
    "window": window,
    "crowd": crowd,
    "rush": rush,
    "forks": forks,
    "wrongs": wrongs,
    "crossed": crossed,
    "stranded": stranded,
    "unhurried": unhurried,
    "overdue": overdue,
    "meetings": meetings,
    "mmus": mmus,
    "mmus_alone": mmus_alone,
    "mspec": mspec,
    "transfers": transfers,
}
