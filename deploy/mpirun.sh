#!/bin/bash
# Partitions as the ranks of an MPI launcher, without Slurm: rank N is partition pN.
#
#   mpirun -n 4 --host a1:2,a2:2 deploy/mpirun.sh FOLDER      # Open MPI; or mpiexec, of MPICH
#   source FOLDER/clients.sh; xpmem-emu status                # on any of the hosts
#
# FOLDER is one that all hosts see and that is not there yet. Ranks on one host are one coherence
# domain; hosts reach each other by message. Needs xpmem-emu in PATH on every host. It is removed
# when all ranks have ended, and so is what partitions have on their hosts.
#
#   XPMEM_EMU_PORT     the first port; otherwise one of 220 ranges, chosen by the name of FOLDER
set -euo pipefail

rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-}}
size=${OMPI_COMM_WORLD_SIZE:-${PMI_SIZE:-}}
if [ $# -ne 1 ] || [ -z "$rank" ] || [ -z "$size" ]; then
  echo "error: no rank of MPI, or no folder; try: mpirun -n 4 deploy/mpirun.sh FOLDER" >&2
  exit 64
fi
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd)
per_host=50
port=${XPMEM_EMU_PORT:-$((10000 + $(cksum <<<"$folder" | cut -d ' ' -f 1) % 220 * 2 * per_host))}

# Waits until a file is there, with all of its content: they are made by renaming.
await() {
  for ((n = 0; n < 600; n++)); do
    [ -e "$1" ] && return
    sleep 0.1
  done
  echo "error: rank $rank waited 60 s for $1; try: a folder that all hosts see" >&2
  exit 1
}

publish() {
  cat >"$folder/.$rank.new"
  mv "$folder/.$rank.new" "$folder/$1"
}

hostname | publish "host.$rank"
trap 'rm -f "$folder/host.$rank"; compgen -G "$folder/host.*" >/dev/null || rm -rf "$folder"' EXIT
trap : TERM
export XPMEM_EMU_CLUSTER=mpi-$(basename "$folder") XPMEM_EMU_KEYS=$folder/keys
export XPMEM_EMU_KEY=operator
if [ "$rank" -eq 0 ]; then
  declare -A on_host
  for ((partid = 0; partid < size; partid++)); do
    await "$folder/host.$partid"
    host=$(<"$folder/host.$partid")
    local=${on_host[$host]:-0}
    on_host[$host]=$((local + 1))
    cat <<PARTITION
[[partition]]
name = "p$partid"
partid = $partid
image = "patient"
domain = "$host"
endpoint = "tcp://$host:$((port + local))"
listen = "tcp://0.0.0.0:$((port + local))"
console = "tcp://$host:$((port + per_host + local))"
console_listen = "tcp://0.0.0.0:$((port + per_host + local))"

PARTITION
  done >"$folder/.topology.toml"
  xpmem-emu --quiet keys init --topology "$folder/.topology.toml" >/dev/null
  publish clients.sh <<CLIENTS
# Source it to reach the partitions: xpmem-emu status
export XPMEM_EMU_CLUSTER=clients-$XPMEM_EMU_CLUSTER XPMEM_EMU_TOPOLOGY=$folder/topology.toml
export XPMEM_EMU_KEYS=$folder/keys XPMEM_EMU_KEY=operator
CLIENTS
  mv "$folder/.topology.toml" "$folder/topology.toml"
  echo "$size partitions; clients: source $folder/clients.sh"
fi
await "$folder/topology.toml"

xpmem-emu boot "p$rank" --topology "$folder/topology.toml" &
code=0
while kill -0 $! 2>/dev/null; do code=0; wait $! || code=$?; done
xpmem-emu --quiet clean
exit $code
