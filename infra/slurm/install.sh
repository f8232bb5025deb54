#!/usr/bin/env bash
# Slurm of the system's packages, for `make test-slurm`, which starts a cluster of its own from them and stops it again.
set -euo pipefail
have() { PATH="/usr/sbin:/usr/bin:/sbin:/bin" command -v "$1" > /dev/null; }
if have munged && have slurmctld && have slurmd && have sbatch; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! have apt-get; then
    echo "Slurm is missing: install slurmctld, slurmd, slurm-client and munge; as root, on Debian or Ubuntu, this does" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# No daemon of the packages' own: tests start theirs, on ports and sockets of their own.
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold slurmctld slurmd slurm-client munge
