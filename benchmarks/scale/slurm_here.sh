#!/bin/bash
# SLURM on this machine alone, for trying things out: `slurm_here.sh start FOLDER`, `slurm_here.sh stop FOLDER`.
# Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge) and root. After `start`:
#     export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
command=${1:?start or stop} folder=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)
export SLURM_CONF=$folder/slurm.conf
case $command in
start)
    for program in munged slurmctld slurmd sbatch; do
        command -v $program > /dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
    done
    mkdir -p "$folder/state" "$folder/spool" /run/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none; }
    chown munge: /etc/munge/munge.key /run/munge && chmod 400 /etc/munge/munge.key
    pgrep -x munged > "$folder/munged.before" || setpriv --reuid munge --regid munge --clear-groups munged
    name=$(hostname -s)
    cores=$(getconf _NPROCESSORS_ONLN) memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    cat > "$SLURM_CONF" <<CONFIGURATION
ClusterName=here
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MpiDefault=none
KillWait=5
MinJobAge=300
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=here Nodes=$name Default=YES MaxTime=INFINITE State=UP
CONFIGURATION
    slurmctld -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF"
    for _ in $(seq 50); do
        sinfo -h -o %t 2> /dev/null | grep -q '^idle' && exit 0
        scontrol update nodename="$name" state=resume 2> /dev/null || true
        sleep 0.2
    done
    echo "SLURM does not come up: see $folder/*.log" >&2
    exit 1
    ;;
stop)
    for daemon in slurmd slurmctld; do
        [ -s "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" || true
    done
    ;;
*)
    echo "expected start or stop, but got $command" >&2
    exit 2
    ;;
esac
