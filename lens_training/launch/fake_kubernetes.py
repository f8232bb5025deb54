"""A stand-in for Kubernetes: Jobs, pods and logs over REST, where a pod is a process of this machine."""

import json
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lens_training.launch.fake import Answer, Container, FakeServer

_JOBS: Final = re.compile(r"/apis/batch/v1/namespaces/([^/]+)/jobs(?:/([^/]+))?")
_PODS: Final = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?")
_SERVICES: Final = re.compile(r"/api/v1/namespaces/([^/]+)/services")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Pod:
    def __init__(self, job: dict[str, Any], index: int, folder: Path) -> None:
        name = job["metadata"]["name"]
        spec = job["spec"]["template"]["spec"]
        one = spec["containers"][0]
        env: dict[str, str] = {"JOB_COMPLETION_INDEX": str(index)}
        for variable in one.get("env", []):
            env[variable["name"]] = _expanded(variable["value"], env)
        # What the cluster's name service would say of the first pod.
        command = [_expanded(part, env).replace(f"{name}-0.{name}:", "127.0.0.1:") for part in one["command"]]
        self.name = f"{name}-{index}-{uuid.uuid4().hex[:5]}"
        self.job = name
        self.index = index
        self.grace_s = int(spec.get("terminationGracePeriodSeconds", 30))
        self.disrupted = False
        self.deleted = False
        self.container = Container(command, one.get("workingDir", ""), env, folder / f"{self.name}.log")

    def shown(self) -> dict[str, Any]:
        code = self.container.code
        phase = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
        ended = {"exitCode": code, "message": self.container.log.read_bytes()[-2048:].decode(errors="replace")}
        return {
            "metadata": {
                "name": self.name,
                "labels": {"job-name": self.job},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(self.index)},
            },
            "spec": {"nodeName": "fake-node"},
            "status": {
                "phase": phase,
                "containerStatuses": [{"state": {"running": {}} if code is None else {"terminated": ended}}],
            },
        }


class FakeKubernetes(FakeServer):
    """As much of an API server and of its controllers as a launcher meets."""

    def __init__(self, folder: Path, token: str = "") -> None:
        """Logs are kept in `folder`; with a token, requests without it are refused."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._token = token
        self._version = 0
        self._jobs: dict[str, dict[str, Any]] = {}
        self._pods: dict[str, list[_Pod]] = {}
        self.services: list[dict[str, Any]] = []
        super().__init__()

    def close(self) -> None:
        """End the server, and every pod with it."""
        super().close()
        for pods in self._pods.values():
            for pod in pods:
                pod.container.kill()

    def evict(self, name: str) -> None:
        """Take the pods of a Job away, as when their node is drained."""
        with self.lock:
            for pod in self._pods.get(name, []):
                pod.disrupted = True
                pod.container.stop(pod.grace_s)

    def answer(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: Any) -> Answer:
        """What a request gets, after the controllers have looked once."""
        if self._token and headers.get("Authorization") != f"Bearer {self._token}":
            return _status(401, "Unauthorized")
        self._control()
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        if found := _JOBS.fullmatch(path):
            return self._about_jobs(method, found[2], wanted, headers, body)
        if found := _PODS.fullmatch(path):
            return self._about_pods(method, found[2], wanted, body)
        if _SERVICES.fullmatch(path) and method == "POST":
            self.services.append(body)
            return 201, body
        return _status(404, "the server could not find the requested resource")

    def _about_jobs(
        self, method: str, name: str | None, wanted: dict[str, str], headers: Mapping[str, str], body: Any
    ) -> Answer:
        if name is None and method == "POST":
            return self._create(body)
        if name is None:
            chosen = [job for job in self._jobs.values() if wanted.items() <= job["metadata"]["labels"].items()]
            return 200, {"kind": "JobList", "items": chosen}
        job = self._jobs.get(name)
        if job is None:
            return _status(404, f'jobs.batch "{name}" not found')
        if method == "PATCH":
            if headers.get("Content-Type") != "application/merge-patch+json":
                return _status(415, "the body of the request was in an unknown format")
            _merge(job, body)
            self._touch(job)
            self._control()
        if method == "DELETE":
            for field, value in ((body or {}).get("preconditions") or {}).items():
                if job["metadata"][field] != value:
                    return _status(409, f"Precondition failed: {field}")
            for pod in self._pods.pop(name, []):
                pod.container.stop(pod.grace_s)
            return 200, self._jobs.pop(name)
        return 200, job

    def _about_pods(self, method: str, name: str | None, wanted: dict[str, str], body: Any) -> Answer:
        pods = [pod for job, pods in self._pods.items() for pod in pods if wanted.get("job-name", job) == job]
        if name is not None:
            found = next((pod for pod in pods if pod.name == name), None)
            return (
                _status(404, f'pods "{name}" not found') if found is None else (200, found.container.log.read_bytes())
            )
        if method == "DELETE":
            for pod in pods:
                pod.deleted = True
                pod.container.stop(min(pod.grace_s, (body or {}).get("gracePeriodSeconds", pod.grace_s)))
        return 200, {"kind": "PodList", "items": [pod.shown() for pod in pods]}

    def _create(self, job: dict[str, Any]) -> Answer:
        name, template = job["metadata"]["name"], job["spec"]["template"]["spec"]
        if not _NAME.fullmatch(name):
            return _status(422, f'Job.batch "{name}" is invalid: metadata.name')
        if template.get("restartPolicy") != "Never":
            return _status(422, f'Job.batch "{name}" is invalid: only "Never" goes with podFailurePolicy')
        if name in self._jobs:
            return _status(409, f'jobs.batch "{name}" already exists')
        job["metadata"] = {"labels": {}, "annotations": {}, **job["metadata"], "uid": str(uuid.uuid4())}
        job["status"] = {}
        self._touch(job)
        self._jobs[name] = job
        self._control()
        return 201, job

    def _touch(self, job: dict[str, Any]) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)

    def _control(self) -> None:
        for name, job in self._jobs.items():
            if not job["status"].get("conditions"):
                self._look_after(name, job)

    def _look_after(self, name: str, job: dict[str, Any]) -> None:
        spec, pods = job["spec"], self._pods.setdefault(name, [])
        if spec.get("suspend"):
            for pod in pods:
                pod.deleted = True
                pod.container.stop(pod.grace_s)
            self._pods[name] = [pod for pod in pods if pod.container.code is None]
            return
        if "startTime" not in job["status"]:
            job["status"]["startTime"] = time.time()
            self._pods[name] = pods = [_Pod(job, index, self._folder) for index in range(spec.get("completions", 1))]
            self._touch(job)
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and time.time() >= job["status"]["startTime"] + deadline:
            for pod in pods:
                pod.container.stop(pod.grace_s)
            self._end(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        codes = [pod.container.code for pod in pods]
        if any(pod.disrupted and code is not None for pod, code in zip(pods, codes, strict=True)):
            self._end(job, "Failed", "PodFailurePolicy", "matching FailJob rule: condition DisruptionTarget")
        elif any(codes):
            for pod in pods:
                pod.container.stop(pod.grace_s)
            self._end(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif all(code == 0 for code in codes):
            self._end(job, "Complete", "", "")

    def _end(self, job: dict[str, Any], kind: str, reason: str, message: str) -> None:
        job["status"]["conditions"] = [{"type": kind, "status": "True", "reason": reason, "message": message}]
        self._touch(job)


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` by its value where there is one, `$$` by `$`: as kubelets do."""

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else env.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def _merge(value: dict[str, Any], change: dict[str, Any]) -> None:
    """A JSON merge patch."""
    for name, new in change.items():
        if new is None:
            value.pop(name, None)
        elif isinstance(new, dict):
            _merge(value.setdefault(name, {}), new)
        else:
            value[name] = new


def _status(code: int, message: str) -> Answer:
    return code, json.dumps({"kind": "Status", "status": "Failure", "message": message, "code": code}).encode()
