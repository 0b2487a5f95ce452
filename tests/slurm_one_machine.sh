#!/usr/bin/env bash
# A Slurm cluster of this one machine, for the tests: starts munge, slurmctld and two slurmd as the
# nodes n1 and n2, runs a command in it, and ends them. Installs nothing; needs root, slurm-wlm and
# munge (Debian and Ubuntu), and no systemd.
#
#   tests/slurm_one_machine.sh python -m lib.batch params/demo --executor slurm --gpus 0
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" > /dev/null || { echo "no $program here: apt-get install slurm-wlm munge"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd has to be started as root"; exit 77; }

state=$(mktemp -d /tmp/slurm.XXXXXX)
chmod 755 "$state"
pids=()
finish() {
  status=$?
  trap - EXIT INT TERM
  scancel --user root --state PENDING 2> /dev/null || true
  scancel --user root --signal KILL 2> /dev/null || true
  for _ in $(seq 100); do  # slurmstepd would outlive slurmd
    [ -z "$(squeue --noheader 2> /dev/null)" ] && break
    sleep 0.1
  done
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  wait
  if [ "$status" != 0 ]; then tail -n 40 "$state"/*.log; fi
  rm -rf "$state"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# munge: signs what the daemons and commands say to each other
install -d -o munge -g munge -m 755 "$state/munge"
dd if=/dev/urandom of="$state/munge/key" bs=1024 count=1 status=none
chown munge: "$state/munge/key"
chmod 400 "$state/munge/key"
runuser -u munge -- munged --foreground --force --key-file "$state/munge/key" \
  --socket "$state/munge/socket" --pid-file "$state/munge/pid" --log-file "$state/munge/log" \
  --seed-file "$state/munge/seed" > "$state/munged.log" 2>&1 &
pids+=($!)

port=$((20000 + RANDOM % 20000))
host=$(hostname -s)
cat > "$state/slurm.conf" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=$port
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.%n.pid
SlurmdSpoolDir=$state/spool.%n
StateSaveLocation=$state/save
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
KillWait=30
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=1,sched_min_interval=100000
MailProg=/bin/true
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$state/slurm.conf"
mkdir "$state/save"
for _ in $(seq 100); do [ -S "$state/munge/socket" ] && break; sleep 0.1; done
slurmctld -D > "$state/slurmctld.out.log" 2>&1 &
pids+=($!)
for node in n1 n2; do
  mkdir "$state/spool.$node"
  slurmd -D -N "$node" > "$state/$node.out.log" 2>&1 &
  pids+=($!)
done
for _ in $(seq 300); do
  [ "$(sinfo --noheader --format %T 2> /dev/null)" = idle ] && break
  sleep 0.1
done
sinfo
"$@"
