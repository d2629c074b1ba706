#!/bin/bash
# Partitions as the tasks of a Slurm job: task N is partition pN, peers are the other tasks.
#
#   sbatch --nodes 2 --ntasks-per-node 2 deploy/slurm.sh
#
# Tasks on one host are one coherence domain and share its /dev/shm; hosts reach each other by
# message. Needs xpmem-emu in PATH on every host and a folder that all hosts see: the job's own is
# made in the working directory, with the topology, the keys and the way in for clients. All of it,
# and what partitions have on their hosts, is removed when the job ends or is cancelled.
#
#   XPMEM_EMU_FOLDER   where the job's folder is made, instead of the working directory
#   XPMEM_EMU_PORT     its first port; otherwise one of 220 ranges, chosen by the job's number
#   XPMEM_EMU_LAUNCH   what starts the tasks, instead of srun: mpirun, mpiexec
#
#SBATCH --job-name=xpmem-emu
#SBATCH --distribution=block
set -euo pipefail

# Jobs on one host must not meet: 50 ports of partitions and 50 of consoles, below those that the
# system gives to clients.
per_host=50
port=${XPMEM_EMU_PORT:-$((10000 + SLURM_JOB_ID % 220 * 2 * per_host))}
folder=${XPMEM_EMU_FOLDER:-$PWD}/xpmem-emu-$SLURM_JOB_ID
umask 077

# Hosts and tasks per host, in the order in which srun numbers tasks: "2(x3),1" is 2 2 2 1.
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
counts=()
IFS=, read -ra groups <<<"$SLURM_TASKS_PER_NODE"
for group in "${groups[@]}"; do
  times=1
  [[ $group =~ \(x([0-9]+)\) ]] && times=${BASH_REMATCH[1]}
  for ((n = 0; n < times; n++)); do counts+=("${group%%(*}"); done
done

partid=0
topology=
for at in "${!hosts[@]}"; do
  if ((counts[at] > per_host)); then
    echo "error: ${counts[at]} tasks on ${hosts[at]}, at most $per_host; try: more --nodes" >&2
    exit 1
  fi
  for ((local = 0; local < counts[at]; local++)); do
    topology+="[[partition]]
name = \"p$partid\"
partid = $partid
image = \"patient\"
domain = \"${hosts[at]}\"
endpoint = \"tcp://${hosts[at]}:$((port + local))\"
listen = \"tcp://0.0.0.0:$((port + local))\"
console = \"tcp://${hosts[at]}:$((port + per_host + local))\"
console_listen = \"tcp://0.0.0.0:$((port + per_host + local))\"

"
    partid=$((partid + 1))
  done
done

# scancel sends SIGTERM to this script and to all processes of the tasks, and waits for them.
trap : TERM
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder"
echo "$topology" >"$folder/topology.toml"
export XPMEM_EMU_CLUSTER=job-$SLURM_JOB_ID XPMEM_EMU_KEYS=$folder/keys XPMEM_EMU_KEY=operator
xpmem-emu --quiet keys init --topology "$folder/topology.toml" >/dev/null
cat >"$folder/clients.sh" <<CLIENTS
# Source it to reach the job's partitions: xpmem-emu status
export XPMEM_EMU_CLUSTER=clients-$SLURM_JOB_ID XPMEM_EMU_TOPOLOGY=$folder/topology.toml
export XPMEM_EMU_KEYS=$folder/keys XPMEM_EMU_KEY=operator
CLIENTS
echo "$partid partitions; clients: source $folder/clients.sh"

# A partition that dies leaves the others alone: that is what there is to see. The last one that
# ends on a host removes what all of them had there. Ranks are mpirun's where mpirun starts them.
${XPMEM_EMU_LAUNCH:-srun --distribution=block --kill-on-bad-exit=0} bash -c '
  trap : TERM
  rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-$SLURM_PROCID}}
  xpmem-emu boot "p$rank" --topology "$0" &
  code=0
  while kill -0 $! 2>/dev/null; do code=0; wait $! || code=$?; done
  xpmem-emu --quiet clean
  exit $code' "$folder/topology.toml" &
code=0
while kill -0 $! 2>/dev/null; do code=0; wait $! || code=$?; done
exit $code
