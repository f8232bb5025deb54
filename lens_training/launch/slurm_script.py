"""The batch script of a Slurm job: one task per node, torchrun inside, a checkpoint before the nodes are taken away."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lens_training.launch.base import JobSpec
from lens_training.launch.command import command, environment

TIME_OVER: Final = "time over"
_HEAD: Final = "wonder-head-of-the-job"
_NEVER_S: Final = 10**9
_EARLY_S: Final = 61
"""Slurm looks at its clock once a minute, and sends the signal up to that much too early."""

_BODY: Final = """
# A key runs once, even if sbatch was sent twice because its first answer got lost.
(set -o noclobber; echo "$SLURM_JOB_ID" > "$here/claim") 2> /dev/null
[ "$(cat "$here/claim")" = "$SLURM_JOB_ID" ] || exit 0
rm -f "$here/exit.json"
[ -e "$here/cancel.json" ] && exit 143

# Slurm signals this shell and nobody else (B:). USR1: the nodes are needed or the time is nearly over; TERM: stop.
child= asked= told=
stop() {
    asked=$1 told=1
    [ -n "$child" ] && @TELL@
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

@COMMAND@ &
child=$!
[ -n "$asked" ] && @TELL@
# The first wait ends when a signal comes, not when the job does.
while told=; wait "$child"; code=$?; [ -n "$told" ]; do :; done

reason=
if [ "$asked" = USR1 ] && [ ! -e "$here/cancel.json" ]; then
    if [ "$SECONDS" -ge "$over" ]; then
        reason="@OVER@"
        code=1
    elif scontrol requeue "$SLURM_JOB_ID"; then
        exit 0
    fi
fi
printf '{"code": %d, "reason": "%s"}' "$code" "$reason" > "$here/.exit" && mv "$here/.exit" "$here/exit.json"
exit "$code"
"""


def script(job: JobSpec, here: Path, name: str, python: str, options: Sequence[str]) -> str:
    """The whole script.

    Args:
        job: The job.
        here: Its folder, which launcher and nodes share.
        name: Its name in Slurm.
        python: The interpreter on the nodes.
        options: Of sbatch, such as `--partition=h100`.
    """
    head = [f"--job-name={name}", f"--output={here / 'log'}", f"--chdir={job.workdir}", f"--nodes={job.nodes}"]
    head += ["--ntasks-per-node=1", f"--signal=B:USR1@{job.grace_s}", "--requeue", "--open-mode=append"]
    over = _NEVER_S
    if job.wall_s is not None:
        minutes = math.ceil((job.wall_s + job.grace_s) / 60)
        head.append(f"--time={minutes}")
        over = max(0, minutes * 60 - job.grace_s - _EARLY_S)
    if job.gpus_per_node:
        head.append(f"--gpus-per-node={job.gpus_per_node}")
    if job.cpus is not None:
        head.append(f"--cpus-per-task={job.cpus}")
    if job.memory_gb is not None:
        head.append(f"--mem={job.memory_gb}G")
    lines = ["#!/bin/bash", *(f"#SBATCH {_quoted(option)}" for option in [*head, *options])]
    lines += [f"here={shlex.quote(str(here))}"]
    lines += [f"export {key}={shlex.quote(value)}" for key, value in environment(job).items()]
    if job.cpus is not None:
        lines.append(f"export SRUN_CPUS_PER_TASK={job.cpus}")
    lines.append(f"over={over}")
    run, tell = shlex.join(command(job, python, _HEAD)), 'kill -TERM "$child"'
    if job.nodes > 1:
        # This shell runs on the first node; a port of its own for each job that may share it.
        run = run.replace(_HEAD, '"$(hostname):$((20000 + SLURM_JOB_ID % 20000))"')
        # SIGTERM makes srun kill its tasks at once. So it stands apart from the shell's process group, and its tasks
        # are told through Slurm. The first of them to leave must not cut off the checkpoints of the others.
        run = f"setsid srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait={job.grace_s} {run}"
        tell = 'scancel --signal=TERM "$SLURM_JOB_ID"'
    return "\n".join(lines) + _BODY.replace("@COMMAND@", run).replace("@OVER@", TIME_OVER).replace("@TELL@", tell)


def _quoted(option: str) -> str:
    """As sbatch reads it: within double quotes, backslashes before what would end them."""
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"' if set(option) & set(" \t\"'\\#") else option
