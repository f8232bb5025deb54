"""A stand-in for SageMaker and its part of CloudWatch: training jobs that are processes of this machine.

Requests are checked by the service's own model, as botocore carries it: required fields, lengths, patterns.
"""

import functools
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import botocore.session

from lens_training.launch.fake import Answer, Container, FakeServer

_GROUP = "/aws/sagemaker/TrainingJobs"


class _Job:
    def __init__(self, request: dict[str, Any], folder: Path) -> None:
        self.request = request
        self.name: str = request["TrainingJobName"]
        self.created = time.time()
        self.began = 0.0
        self.stopping = False
        self.over_time = False
        self.container: Container | None = None
        self.log = folder / f"{self.name}.log"

    def begin(self) -> None:
        how = self.request["AlgorithmSpecification"]
        self.began = time.time()
        self.container = Container(
            [*how["ContainerEntrypoint"], *how.get("ContainerArguments", [])],
            "",
            self.request.get("Environment", {}),
            self.log,
        )

    def status(self) -> tuple[str, str, str]:
        """Primary, secondary, and why it failed."""
        if self.container is None:
            return ("Stopped", "Stopped", "") if self.stopping else ("InProgress", "Starting", "")
        code = self.container.code
        if code is None:
            return ("Stopping", "Stopping", "") if self.stopping else ("InProgress", "Training", "")
        if self.stopping:
            return "Stopped", "MaxRuntimeExceeded" if self.over_time else "Stopped", ""
        if code == 0:
            return "Completed", "Completed", ""
        return "Failed", "Failed", f"AlgorithmError: , exit code: {code}"


class FakeSageMaker(FakeServer):
    """As much of SageMaker and CloudWatch as a launcher meets."""

    def __init__(self, folder: Path, grace_s: float = 120.0) -> None:
        """Logs are kept in `folder`; a job that is stopped has `grace_s` between SIGTERM and SIGKILL."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._grace_s = grace_s
        self._held = False
        self._jobs: dict[str, _Job] = {}
        self._model = _model()
        super().__init__()

    def close(self) -> None:
        """End the server, and every job with it."""
        super().close()
        for job in self._jobs.values():
            if job.container is not None:
                job.container.kill()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """No instance comes up meanwhile."""
        self._held = True
        try:
            yield
        finally:
            with self.lock:
                self._held = False
                self._look()

    def answer(
        self,
        method: str,  # noqa: ARG002 - everything is in the headers and the body
        path: str,  # noqa: ARG002 - as above
        query: dict[str, str],  # noqa: ARG002 - as above
        headers: Mapping[str, str],
        body: Any,
    ) -> Answer:
        """What a request gets, after every job was looked at once."""
        self._look()
        service, _, operation = headers.get("X-Amz-Target", "").partition(".")
        if service == "SageMaker":
            shape = self._model.operation_model(operation).input_shape
            if wrong := list(_faults(shape, body, "request")):
                return _refusal("ValidationException", "; ".join(wrong))
        doing = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": self._describe,
            "StopTrainingJob": self._stop_named,
            "ListTrainingJobs": self._list,
            "DescribeLogStreams": self._streams,
            "GetLogEvents": self._events,
        }.get(operation)
        return _refusal("UnknownOperationException", operation) if doing is None else doing(body)

    def _look(self) -> None:
        for job in self._jobs.values():
            if job.container is None and not job.stopping and not self._held:
                job.begin()
            limit_s = job.request["StoppingCondition"]["MaxRuntimeInSeconds"]
            if job.container is not None and not job.stopping and time.time() >= job.began + limit_s:
                self._stop(job)
                job.over_time = True

    def _create(self, body: dict[str, Any]) -> Answer:
        name = body["TrainingJobName"]
        if name in self._jobs:
            return _refusal("ResourceInUse", f"Training job names must be unique: {name} exists already")
        limits = body["StoppingCondition"]
        spot = body.get("EnableManagedSpotTraining", False)
        if spot and limits.get("MaxWaitTimeInSeconds", 0) < limits["MaxRuntimeInSeconds"]:
            return _refusal("ValidationException", "MaxWaitTimeInSeconds must be at least MaxRuntimeInSeconds")
        if not spot and "MaxWaitTimeInSeconds" in limits:
            return _refusal("ValidationException", "MaxWaitTimeInSeconds goes with managed spot training only")
        self._jobs[name] = _Job(body, self._folder)
        self._look()
        return 200, {"TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}"}

    def _describe(self, body: dict[str, Any]) -> Answer:
        job = self._jobs.get(body["TrainingJobName"])
        if job is None:
            return _refusal("ValidationException", "Requested resource not found.")
        status, second, why = job.status()
        reason = {"FailureReason": why} if why else {}
        return 200, {
            **_summary(job),
            "TrainingJobStatus": status,
            "SecondaryStatus": second,
            "ResourceConfig": job.request["ResourceConfig"],
            **reason,
        }

    def _list(self, body: dict[str, Any]) -> Answer:
        found = [
            _summary(job)
            for job in self._jobs.values()
            if body.get("NameContains", "") in job.name and body.get("StatusEquals") in {None, job.status()[0]}
        ]
        # A page each, as nothing says how many there will be.
        begin = int(body.get("NextToken", 0))
        more = {"NextToken": str(begin + 1)} if begin + 1 < len(found) else {}
        return 200, {"TrainingJobSummaries": found[begin : begin + 1], **more}

    def _stop_named(self, body: dict[str, Any]) -> Answer:
        job = self._jobs.get(body["TrainingJobName"])
        if job is None:
            return _refusal("ValidationException", "Requested resource not found.")
        if job.status()[0] not in {"InProgress", "Stopping"}:
            return _refusal("ValidationException", f"The request was rejected: the job is in status {job.status()[0]}")
        self._stop(job)
        return 200, {}

    def _stop(self, job: _Job) -> None:
        if not job.stopping and job.container is not None:
            job.container.stop(self._grace_s)
        job.stopping = True

    def _streams(self, body: dict[str, Any]) -> Answer:
        name = body["logStreamNamePrefix"].partition("/")[0]
        job = self._jobs.get(name)
        streams = [] if job is None or job.container is None else [{"logStreamName": f"{name}/algo-1-{int(job.began)}"}]
        return 200, {"logStreams": streams}

    def _events(self, body: dict[str, Any]) -> Answer:
        job = self._jobs[body["logStreamName"].partition("/")[0]]
        begin = int(body.get("nextToken", "f/0").partition("/")[2])
        whole = job.log.read_text().rpartition("\n")[0]
        lines = whole.split("\n")[begin : begin + 2] if whole else []
        events = [{"message": line, "timestamp": 0, "ingestionTime": 0} for line in lines]
        return 200, {"events": events, "nextForwardToken": f"f/{begin + len(lines)}", "nextBackwardToken": "b/0"}


@functools.cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("sagemaker")


def _summary(job: _Job) -> dict[str, Any]:
    return {
        "TrainingJobName": job.name,
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{job.name}",
        "CreationTime": job.created,
        "TrainingJobStatus": job.status()[0],
    }


def _faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    """What the service's model forbids."""
    rules = shape.metadata
    size = value if shape.type_name in {"integer", "long"} else len(value) if hasattr(value, "__len__") else 0
    if not rules.get("min", size) <= size <= rules.get("max", size):
        yield f"{where} has size {size}, wanted {rules.get('min')} to {rules.get('max')}"
    if shape.type_name == "string":
        # Classes of Unicode, as AWS writes them and `re` does not know them.
        if "pattern" in rules and not re.fullmatch(re.sub(r"\\p\{\w+\}", r"\\w\\s", rules["pattern"]), value):
            yield f"{where} is {value!r}, which does not match {rules['pattern']}"
        if shape.enum and value not in shape.enum:
            yield f"{where} is {value!r}, which is none of the service's"
    elif shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"{where} lacks {name}"
        for name, part in value.items():
            yield from _faults(shape.members[name], part, f"{where}.{name}") if name in shape.members else iter([name])
    elif shape.type_name == "list":
        for number, part in enumerate(value):
            yield from _faults(shape.member, part, f"{where}[{number}]")
    elif shape.type_name == "map":
        for name, part in value.items():
            yield from _faults(shape.key, name, where)
            yield from _faults(shape.value, part, f"{where}.{name}")


def _refusal(code: str, message: str) -> Answer:
    return 400, {"__type": code, "message": message}
