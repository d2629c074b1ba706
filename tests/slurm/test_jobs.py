"""deploy/slurm.sh as jobs of a real Slurm."""

from tests.slurm.conftest import NODES, Job, Slurm
from xpmem_emu.cluster.topology import read_topology


def left_on(slurm: Slurm, node: str) -> list[str]:
    """Files of partitions, and their processes, that a node still has."""
    files = slurm.run("find", "/dev/shm", "/tmp", "!", "-type", "d", on=node)
    return [*files.split(), *slurm.run("pgrep", "xpmem-emu", on=node, check=False).split()]


def cancelled(slurm: Slurm, job: Job) -> None:
    """Cancel a job; neither it nor its keys are anywhere afterwards."""
    job.cancel()
    assert not job.folder.exists(), slurm.logs()


def test_two_tasks_on_each_of_two_nodes_share_and_scancel_leaves_nothing(slurm: Slurm) -> None:
    job = slurm.submit("--nodes", "2", "--ntasks-per-node", "2")
    print(f"slurm: four partitions on two nodes well after {job.until_well(4):.1f} s")
    domains = [one.domain for one in read_topology(str(job.folder / "topology.toml"))]
    assert domains == ["a1", "a1", "a2", "a2"]
    for name in ("p1", "p3"):
        said = job.shell(
            "segid=$(xpmem-emu --quiet export /etc/hostname --on p0);"
            f"handle=$(xpmem-emu --quiet attach $segid --on {name});"
            "xpmem-emu load $handle 2 >/dev/null && echo ok"
        )
        assert said.strip() == "ok"
    assert all(left_on(slurm, node) for node in NODES)
    cancelled(slurm, job)
    assert [left_on(slurm, node) for node in NODES] == [[], []]


def test_two_jobs_at_once_on_one_node_do_not_meet(slurm: Slurm) -> None:
    jobs = [slurm.submit("--nodelist", "a1", "--nodes", "1", "--ntasks", "2") for _ in range(2)]
    for job in jobs:
        job.until_well(2)
    endpoints = [
        one.endpoint for job in jobs for one in read_topology(str(job.folder / "topology.toml"))
    ]
    assert len(set(endpoints)) == 4
    cancelled(slurm, jobs[0])
    jobs[1].until_well(2)
    # One is killed without a word; what it left goes with the last one.
    slurm.run("bash", "-c", "kill -9 $(pgrep -f '[x]pmem-emu boot p0')", on="a1")
    jobs[1].until_well(0)
    cancelled(slurm, jobs[1])
    assert left_on(slurm, "a1") == []
