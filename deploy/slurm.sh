#!/bin/bash
# Partitions as the tasks of a Slurm job: task N is partition pN, peers are the other tasks.
#
#   sbatch --nodes 2 --ntasks-per-node 2 deploy/slurm.sh
#
# Tasks on one host are one coherence domain and share its /dev/shm; hosts reach each other by
# message. Needs xpmem-emu in PATH on every host and a folder that all hosts see: the job's own is
# made in the working directory, with the topology, the keys and the way in for clients.
#
#SBATCH --job-name=xpmem-emu
#SBATCH --distribution=block
set -euo pipefail

port=${XPMEM_EMU_PORT:-7000}
folder=${XPMEM_EMU_FOLDER:-$PWD}/xpmem-emu-$SLURM_JOB_ID
umask 077
mkdir -p "$folder"

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
for at in "${!hosts[@]}"; do
  for ((local = 0; local < counts[at]; local++)); do
    cat <<PARTITION
[[partition]]
name = "p$partid"
partid = $partid
domain = "${hosts[at]}"
endpoint = "tcp://${hosts[at]}:$((port + local))"
listen = "tcp://0.0.0.0:$((port + local))"
console = "tcp://${hosts[at]}:$((port + 500 + local))"
console_listen = "tcp://0.0.0.0:$((port + 500 + local))"

PARTITION
    partid=$((partid + 1))
  done
done >"$folder/topology.toml"

export XPMEM_EMU_CLUSTER=job-$SLURM_JOB_ID XPMEM_EMU_KEYS=$folder/keys XPMEM_EMU_KEY=operator
xpmem-emu --quiet keys init --topology "$folder/topology.toml" >/dev/null
cat >"$folder/clients.sh" <<CLIENTS
# Source it to reach the job's partitions: xpmem-emu status
export XPMEM_EMU_CLUSTER=clients-$SLURM_JOB_ID XPMEM_EMU_TOPOLOGY=$folder/topology.toml
export XPMEM_EMU_KEYS=$folder/keys XPMEM_EMU_KEY=operator
CLIENTS
echo "$partid partitions; clients: source $folder/clients.sh"

# A partition that dies leaves the others alone: that is what there is to see.
exec srun --distribution=block --kill-on-bad-exit=0 bash -c \
  'exec xpmem-emu boot "p$SLURM_PROCID" --topology "$0"' "$folder/topology.toml"
