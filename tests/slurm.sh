#!/usr/bin/env bash
# Rows of the book through a real Slurm on this machine, with two pretended GPUs and the shipped profile, and
# beside them the same rows by a local batch: records and weights have to be the same. Root of a Debian with
# slurm-wlm and munge (installed where they are missing) and without a Slurm of its own; elsewhere one line
# says why nothing is done.
#   tests/slurm.sh [ROW ...]
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
rows=("$@")
[ $# -gt 0 ] || rows=(exits-mal exits-mal-students)
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
  for service in slurmd slurmctld munged; do
    [ ! -s "$place/$service.pid" ] || kill "$(cat "$place/$service.pid")" 2>/dev/null || true
  done
  rm -rf /etc/slurm/{slurm,gres}.conf "$place"
}
trap end EXIT

# --- one controller, one node, two GPUs that are null devices
mkdir -p "$place"/{state,spool} /etc/slurm && mkdir -m 700 "$place/munge"
host=$(hostname -s)
for k in 0 1; do mknod "$place/gpu$k" c 1 3 2>/dev/null || touch "$place/gpu$k"; done
# Snakemake's plugin clears every SLURM_ variable, SLURM_CONF too: what it starts reads /etc/slurm alone
cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
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
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1100)}' /proc/meminfo) Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
echo "NodeName=$host Name=gpu File=$place/gpu[0-1]" >/etc/slurm/gres.conf
head -c 128 /dev/urandom >"$place/munge/key" && chmod 400 "$place/munge/key"
munged --force --key-file="$place/munge/key" --socket="$place/munge/socket" --pid-file="$place/munged.pid" \
  --log-file="$place/munge/log" --seed-file="$place/munge/seed" && slurmctld && slurmd -N "$host" ||
  skip "its services do not start here"
for _ in $(seq 60); do ! sinfo -h -o %T 2>/dev/null | grep -q idle || break; sleep 1; done
sinfo -h -o %T | grep -q idle || skip "its node does not come up here"
sinfo -h -o 'slurm: node %n %T %G'

# --- the same rows twice
export PYTHONPATH=$PWD:$PWD/tests OMP_NUM_THREADS=1
for way in slurm local; do
  words=(reproduce "${rows[@]}" --scale smoke --runs "$place/$way/runs")
  [ $way = local ] || words+=(--slurm)
  SECONDS=0
  timeout 1200 "$PYTHON" -m pointseg "${words[@]}"
  echo "slurm: $way took $SECONDS s"
done
grep -h '"gpus"' "$place"/slurm/work/batch/states/*.json | sed 's/^/slurm: /'
"$PYTHON" -m support.same_stages "$place/slurm" "$place/local"
