"""Jobs of a Kubernetes cluster, through its REST interface."""

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from lens_training.launch.base import JobRef, JobSpec, JobState, State
from lens_training.launch.files import LOG_BYTES, ending, last_said
from lens_training.launch.kubernetes_job import (
    CANCELLED_NOTE,
    KEY_NOTE,
    RUN_LABEL,
    job_name,
    manifest,
    run_label,
    service,
)
from lens_training.launch.rest import Rest
from wonder.errors import JobConflict, JobLost, JobRefused, LauncherUnavailable

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TRIES: Final = 30
_PAUSE_S: Final = 0.05


class KubernetesLauncher:
    """Starts jobs as `batch/v1` Jobs; needs Kubernetes 1.26 or newer, and the rights in `infra/kubernetes`."""

    kind = "kubernetes"

    def __init__(
        self,
        server: str,
        *,
        namespace: str = "default",
        token: str | Path = "",
        ca: Path | None = None,
        python: str = "python",
        pod: Mapping[str, Any] | None = None,
        container: Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
        interval_s: float = 1.0,
    ) -> None:
        """Nothing is connected yet.

        Args:
            server: Its address, such as `https://10.0.0.1:6443`.
            namespace: Where jobs run.
            token: Bearer token, or a file that holds it.
            ca: Certificates of the server.
            python: The interpreter in images.
            pod: Merged into each pod's specification: volumes, node selector, tolerations.
            container: Merged into its container's: mounts.
            timeout_s: Of one request.
            interval_s: Between two looks while a job is being cancelled.
        """
        self._rest = Rest(server, token=token, ca=ca, timeout_s=timeout_s)
        self._namespace = namespace
        self._python = python
        self._pod = dict(pod or {})
        self._container = dict(container or {})
        self._interval_s = interval_s

    @classmethod
    def in_cluster(cls, **settings: Any) -> "KubernetesLauncher":
        """As the service account of the pod that this runs in."""
        return cls(
            "https://kubernetes.default.svc",
            **{
                "namespace": (ACCOUNT / "namespace").read_text().strip(),
                "token": ACCOUNT / "token",
                "ca": ACCOUNT / "ca.crt",
                **settings,
            },
        )

    async def submit(self, job: JobSpec) -> JobRef:
        """Start a job, or find it; see `JobLauncher`."""
        return await asyncio.to_thread(self._submit, job)

    async def find(self, key: str) -> JobRef | None:
        """The Job of a key; it is there until somebody deletes it."""
        found = await asyncio.to_thread(self._job, job_name(key))
        return None if found is None or _is_reserved(found) else self._ref(key)

    async def poll(self, ref: JobRef) -> JobState:
        """How it stands, from the Job and its pods."""
        return await asyncio.to_thread(self._poll, ref.job_id)

    async def cancel(self, ref: JobRef, grace: timedelta) -> None:
        """Suspend the Job, which ends its pods; those have `grace`, and never more than the job's `grace_s`."""
        if (await self.poll(ref)).over:
            return
        await asyncio.to_thread(self._suspend, ref.job_id, max(0, int(grace.total_seconds())))
        while not (await self.poll(ref)).over:  # noqa: ASYNC110 - it ends elsewhere
            await asyncio.sleep(self._interval_s)

    async def logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        """What the first pod printed, as far as its node keeps it (10 MiB by default); nothing once the pod is gone."""
        return await asyncio.to_thread(self._logs, ref, after)

    def _ref(self, key: str) -> JobRef:
        return JobRef(kind=self.kind, job_id=job_name(key), key=key)

    def _submit(self, job: JobSpec) -> JobRef:
        if not job.image:
            raise JobRefused(f"{job.key} names no image: Kubernetes runs nothing else")
        name = job_name(job.key)
        whole = manifest(job, self._python, self._pod, self._container)
        for attempt in range(_TRIES):
            status, said = self._ask("POST", self._jobs(), whole)
            if status not in {201, 409}:
                raise JobRefused(
                    f"the cluster refused {job.key} ({status}: {_message(said)}): correct the job or rights"
                )
            mine = json.loads(said) if status == 201 else self._job(name)
            if mine is None:
                continue  # a twin of ours has just given up
            if not _is_reserved(mine):
                return self._ref(job.key)
            # Nothing runs yet. Whoever sees another job steps back, even if both do: so there are never two.
            rivals = [other for other in self._alive(job.run_folder) if other["metadata"]["name"] != name]
            if not rivals:
                if job.nodes > 1:
                    self._serve(name, mine["metadata"]["uid"])
                self._patch(name, {"spec": {"suspend": False}})
                return self._ref(job.key)
            self._withdraw(mine)
            begun = [other for other in rivals if not _is_reserved(other)]
            if begun or attempt == _TRIES - 1:
                key = (begun or rivals)[0]["metadata"].get("annotations", {}).get(KEY_NOTE, "another job")
                raise JobConflict(
                    f"{key} is alive and writes to {job.run_folder}, where {job.key} was to run: "
                    "wait until it is over, or cancel it"
                )
            time.sleep(random.uniform(0, _PAUSE_S * (attempt + 1)))
        raise LauncherUnavailable(f"{name} comes and goes: somebody else starts and stops {job.key}; try again")

    def _serve(self, name: str, uid: str) -> None:
        status, said = self._ask("POST", f"/api/v1/namespaces/{self._namespace}/services", service(name, uid))
        if status not in {201, 409}:
            raise JobRefused(f"no service for the pods of {name} ({status}: {_message(said)}): correct the rights")

    def _alive(self, run_folder: str) -> list[dict[str, Any]]:
        query = urlencode({"labelSelector": f"{RUN_LABEL}={run_label(run_folder)}"})
        found = self._get(f"{self._jobs()}?{query}") or {}
        return [job for job in found.get("items", []) if not self._is_over(job)]

    def _is_over(self, job: dict[str, Any]) -> bool:
        if _condition(job, "Complete") or _condition(job, "Failed"):
            return True
        return _is_cancelled(job) and not _unfinished(self._pods(job["metadata"]["name"]))

    def _withdraw(self, job: dict[str, Any]) -> None:
        meta = job["metadata"]
        # Only as it was seen: a twin may have begun it since, and then it stays.
        seen = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        options = {"preconditions": seen, "propagationPolicy": "Background"}
        self._ask("DELETE", f"{self._jobs()}/{meta['name']}", options)

    def _suspend(self, name: str, grace_s: int) -> None:
        self._patch(name, {"metadata": {"annotations": {CANCELLED_NOTE: "true"}}, "spec": {"suspend": True}})
        path = f"/api/v1/namespaces/{self._namespace}/pods?{urlencode({'labelSelector': f'job-name={name}'})}"
        self._ask("DELETE", path, {"gracePeriodSeconds": grace_s})

    def _poll(self, name: str) -> JobState:
        job = self._job(name)
        if job is None:
            return JobState(state="lost", reason=f"there is no Job {name} in {self._namespace}: it was deleted")
        pods = self._pods(name)
        node = next((pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")), "")
        codes = [ended["exitCode"] for pod in pods if (ended := _ended(pod)) is not None]
        cancelled = _is_cancelled(job)
        if _condition(job, "Complete"):
            return JobState(state="cancelled" if cancelled else "succeeded", node=node, exit_code=0)
        if (failed := _condition(job, "Failed")) is not None:
            code = max(codes, default=None)
            state: State = "cancelled" if cancelled else "failed"
            return JobState(state=state, reason=_why(failed, code, pods), node=node, exit_code=code)
        if cancelled:
            left = _unfinished(pods)
            code = None if left else max(codes, default=None)
            return JobState(
                state="running" if left else "cancelled",
                reason="asked to stop" if left else "",
                node=node,
                exit_code=code,
            )
        if any(pod["status"].get("phase") == "Running" for pod in pods):
            return JobState(state="running", node=node)
        return JobState(state="pending", reason=_waits(pods), node=node)

    def _logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        pods = self._pods(ref.job_id)
        first = next((pod for pod in pods if _index(pod) == "0"), None)
        if first is None:
            if self._job(ref.job_id) is None:
                raise JobLost(f"there is no Job {ref.job_id} in {self._namespace}: it was deleted")
            return b"", after
        path = f"/api/v1/namespaces/{self._namespace}/pods/{first['metadata']['name']}/log"
        status, log = self._ask("GET", path)
        if status != 200:  # its container has not begun
            return b"", after
        found = log[after : after + LOG_BYTES]
        return found, after + len(found)

    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._namespace}/jobs"

    def _job(self, name: str) -> dict[str, Any] | None:
        return self._get(f"{self._jobs()}/{name}")

    def _pods(self, name: str) -> list[dict[str, Any]]:
        query = urlencode({"labelSelector": f"job-name={name}"})
        found = self._get(f"/api/v1/namespaces/{self._namespace}/pods?{query}") or {}
        return list(found.get("items", []))

    def _get(self, path: str) -> dict[str, Any] | None:
        status, said = self._ask("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise LauncherUnavailable(f"GET {path}: {status} {_message(said)}: correct the rights of the account")
        found: dict[str, Any] = json.loads(said)
        return found

    def _patch(self, name: str, change: dict[str, Any]) -> None:
        status, said = self._ask("PATCH", f"{self._jobs()}/{name}", change)
        if status != 200:
            raise LauncherUnavailable(f"PATCH {name}: {status} {_message(said)}: try again")

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        return self._rest.ask(method, path, body, patch=method == "PATCH")


def _is_reserved(job: dict[str, Any]) -> bool:
    """Whether it has never begun: its maker died, or is about to let it begin."""
    return bool(job["spec"].get("suspend")) and not _is_cancelled(job)


def _is_cancelled(job: dict[str, Any]) -> bool:
    return CANCELLED_NOTE in job["metadata"].get("annotations", {})


def _condition(job: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = job.get("status", {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def _ended(pod: dict[str, Any]) -> dict[str, Any] | None:
    statuses = pod["status"].get("containerStatuses") or [{}]
    found: dict[str, Any] | None = statuses[0].get("state", {}).get("terminated")
    return found


def _unfinished(pods: list[dict[str, Any]]) -> bool:
    return any(pod["status"].get("phase") not in {"Succeeded", "Failed"} for pod in pods)


def _index(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "0"))


def _why(failed: dict[str, Any], code: int | None, pods: list[dict[str, Any]]) -> str:
    reason = failed.get("reason", "")
    if reason == "DeadlineExceeded":
        return "time over"
    if reason == "PodFailurePolicy":
        return f"preempted or its node was lost: {failed.get('message', '')}"
    if not code:
        return f"{reason}: {failed.get('message', '')}"
    said = next((ended.get("message", "") for pod in pods if (ended := _ended(pod)) and ended["exitCode"] == code), "")
    return ending(code, last_said(said.encode()))


def _waits(pods: list[dict[str, Any]]) -> str:
    for pod in pods:
        waiting = (pod["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        for one in pod["status"].get("conditions") or []:
            if one["type"] == "PodScheduled" and one["status"] == "False":
                return f"{one.get('reason', '')}: {one.get('message', '')}"
    return ""


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said).get("message", ""))[:300]
    except (ValueError, AttributeError):
        return re.sub(r"\s+", " ", said.decode(errors="replace"))[:300]
