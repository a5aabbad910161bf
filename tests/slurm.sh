#!/usr/bin/env bash
# Rows of the book through a real Slurm on this machine, with two pretended GPUs and the shipped profile, and
# beside them the same rows by a local batch: records and weights have to be the same. Where the kernel gives
# network namespaces there are two nodes with a GPU each, and each has to get a job; else one node with both.
# Root of a Debian with slurm-wlm and munge (installed where they are missing) and without a Slurm of its own;
# elsewhere one line says why nothing is done.
#   tests/slurm.sh [ROW ...]
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
rows=("$@")
[ $# -gt 0 ] || rows=(exits-mal exits-masks)
skip() { echo "slurm: not tried: $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "only root can start its services"
[ ! -e /etc/slurm/slurm.conf ] || skip "this machine has a Slurm of its own (/etc/slurm/slurm.conf)"
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  command -v apt-get >/dev/null || skip "slurm-wlm is missing, and there is no apt-get"
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge) >/dev/null 2>&1 ||
    skip "slurm-wlm and munge could not be installed"
fi
place=$(mktemp -d)
end() {
  [ $? = 0 ] || find "$place" \( -name engine.log -o -path '*slurm_logs*.log' -o -name 'slurm*.log' \) -exec tail -n 15 {} +
  cat "$place"/*.pid 2>/dev/null | xargs -r kill 2>/dev/null || true
  for k in 0 1; do ip netns del "node$k" 2>/dev/null || true; done
  ip link del slurmbridge 2>/dev/null || true
  rm -rf /etc/slurm/{slurm,gres}.conf "$place"
}
trap end EXIT

# --- two nodes: namespaces on one bridge, each with an address of its own
mkdir -p "$place"/{state,spool} /etc/slurm && mkdir -m 700 "$place/munge"
bridge() {
  ip link add slurmbridge type bridge && ip addr add 10.213.0.1/24 dev slurmbridge &&
    ip link set slurmbridge up && joined 0 && joined 1
}
joined() {
  ip netns add "node$1" && ip link add "slurm$1" type veth peer name eth0 netns "node$1" &&
    ip link set "slurm$1" master slurmbridge up && ip -n "node$1" addr add "10.213.0.1$1/24" dev eth0 &&
    ip -n "node$1" link set eth0 up && ip -n "node$1" link set lo up
}
host=$(hostname -s)
memory=$(awk '/MemTotal/ {print int($2 / 1100)}' /proc/meminfo)
if bridge 2>/dev/null; then
  nodes=(node0 node1) gpus=1 controller=10.213.0.1
  where() { echo "10.213.0.1${1#node}"; }
  # not `ip netns exec`, which hides /sys/fs/cgroup
  on() { nsenter --net="/run/netns/$1" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$@"; }
else
  nodes=("$host") gpus=2 controller=127.0.0.1
  where() { echo 127.0.0.1; }
  on() { "${@:2}"; }
fi
for k in 0 1; do mknod "$place/gpu$k" c 1 3 2>/dev/null || touch "$place/gpu$k"; done

# --- one controller
# Snakemake's plugin clears every SLURM_ variable, SLURM_CONF too: what it starts reads /etc/slurm alone
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host($controller)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool/%n
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.%n.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.%n.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MpiDefault=none
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
$(for node in "${nodes[@]}"; do
  echo "NodeName=$node NodeAddr=$(where "$node") CPUs=$(nproc) RealMemory=$((memory / ${#nodes[@]})) Gres=gpu:$gpus State=UNKNOWN"
done)
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
if [ "$gpus" = 2 ]; then
  echo "NodeName=$host Name=gpu File=$place/gpu[0-1]"
else
  for k in 0 1; do echo "NodeName=node$k Name=gpu File=$place/gpu$k"; done
fi >/etc/slurm/gres.conf
head -c 128 /dev/urandom >"$place/munge/key" && chmod 400 "$place/munge/key"
munged --force --key-file="$place/munge/key" --socket="$place/munge/socket" --pid-file="$place/munged.pid" \
  --log-file="$place/munge/log" --seed-file="$place/munge/seed" && slurmctld || skip "its services do not start here"
for node in "${nodes[@]}"; do
  mkdir "$place/spool/$node"
  on "$node" slurmd -N "$node" || skip "its services do not start here"
done
up() { [ "$(sinfo -h -N -o %T 2>/dev/null | grep -c idle)" = ${#nodes[@]} ]; }
for _ in $(seq 60); do ! up || break; sleep 1; done
up || skip "its nodes do not come up here"
sinfo -h -N -o 'slurm: node %n %T %G'

# --- the same rows twice
export PYTHONPATH=$PWD:$PWD/tests OMP_NUM_THREADS=1
for way in slurm local; do
  words=(reproduce "${rows[@]}" --scale smoke --runs "$place/$way/runs")
  [ $way = local ] || words+=(--slurm)
  SECONDS=0
  timeout 1200 "$PYTHON" -m pointseg "${words[@]}"
  echo "slurm: $way took $SECONDS s"
  [ $way = local ] || busy=$(scontrol -o show jobs | grep -o ' NodeList=[^ ]*' | sort | uniq -c)
done
grep -h '"gpus"' "$place"/slurm/work/batch/states/*.json | sed 's/^/slurm: /'
"$PYTHON" -m support.same_stages "$place/slurm" "$place/local"
echo "slurm: jobs by node:" $busy
[ ${#rows[@]} -lt 2 ] || [ "$(wc -l <<<"$busy")" = ${#nodes[@]} ] || { echo "slurm: not every node got a job" >&2; exit 1; }
