"""Training jobs of SageMaker, through boto3 (the extra `s3`)."""

import asyncio
import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from lens_training.launch.base import JobRef, JobSpec, JobState, State, short_hash
from lens_training.launch.command import command, environment
from lens_training.launch.files import LOG_BYTES
from wonder.errors import ExtraMissing, JobConflict, JobLost, JobRefused, LauncherUnavailable

_DAY_S: Final = 86_400
_GROUP: Final = "/aws/sagemaker/TrainingJobs"
_FIRST: Final = "algo-1"
"""What SageMaker calls the first instance of every job, in its network and in its logs."""
_PORT: Final = 29400
_ALIVE: Final = ("InProgress", "Stopping")
_WAITING: Final = frozenset(
    {
        "Starting",
        "LaunchingMLInstances",
        "PreparingTrainingStack",
        "Downloading",
        "DownloadingTrainingImage",
        "Pending",
        "Interrupted",
        "Restarting",
        "Updating",
    }
)
_TIME_OVER: Final = frozenset({"MaxRuntimeExceeded", "MaxWaitTimeExceeded"})
_ABSENT: Final = re.compile(r"not found|does not exist|could not find", re.I)
_REFUSED: Final = frozenset(
    {"ValidationException", "AccessDeniedException", "ResourceNotFound", "InvalidParameterValue"}
)


class SageMakerLauncher:
    """Starts jobs as SageMaker training jobs.

    With `spot`, SageMaker takes instances away and begins the job again by itself; the trainer goes on from what lies
    in `/opt/ml/checkpoints`, which SageMaker keeps equal to the run folder in S3.
    """

    kind = "sagemaker"

    def __init__(
        self,
        role_arn: str,
        *,
        instance_type: str = "ml.p5.48xlarge",
        volume_gb: int = 500,
        spot: bool = False,
        spot_wait_s: int = _DAY_S,
        start_attempts: int = 3,
        python: str = "python",
        checkpoints: str = "/opt/ml/checkpoints",
        output: str = "",
        request: Mapping[str, Any] | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        session: Any = None,
        interval_s: float = 5.0,
    ) -> None:
        """Nothing is connected yet.

        Args:
            role_arn: What jobs may do.
            instance_type: Of every node.
            volume_gb: Disk of every node.
            spot: Whether to take instances that may be taken away.
            spot_wait_s: How much longer than its running time a spot job may take.
            start_attempts: How often SageMaker begins anew after a fault of its own.
            python: The interpreter in images.
            checkpoints: The folder that SageMaker keeps equal to a run folder in S3.
            output: Where in S3 SageMaker puts what is left of a job; needed where run folders are not in S3 but on a
                file system that jobs and this machine share (`request` then mounts it by InputDataConfig).
            request: Further fields of CreateTrainingJob, such as VpcConfig.
            region: Default: that of the environment or the profile.
            endpoint: Of a server that speaks the protocol.
            session: Of boto3, where credentials come from elsewhere than its defaults.
            interval_s: Between two looks while a job is being cancelled.

        Raises:
            ExtraMissing: boto3 is not installed.
        """
        try:
            import boto3  # noqa: PLC0415 - of an extra, and nothing else here needs it
            import botocore.exceptions as failures  # noqa: PLC0415 - as above
            from botocore.config import Config  # noqa: PLC0415 - as above
        except ImportError:
            raise ExtraMissing("SageMaker needs boto3: pip install 'wonder-temporal[s3]'") from None
        config = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 2})
        made = {"region_name": region, "config": config, "endpoint_url": endpoint}
        session = session or boto3.session.Session()  # of its own: the default one is not for several threads
        self._client: Any = session.client("sagemaker", **made)
        self._watch: Any = session.client("logs", **made)
        self._failed: type[Exception] = failures.BotoCoreError
        self._answered: type[Exception] = failures.ClientError
        self._role_arn = role_arn
        self._instance_type = instance_type
        self._volume_gb = volume_gb
        self._spot_wait_s = spot_wait_s if spot else None
        self._start_attempts = start_attempts
        self._python = python
        self._checkpoints = checkpoints
        self._output = output
        self._request = dict(request or {})
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._read: dict[str, tuple[int, str]] = {}

    async def submit(self, job: JobSpec) -> JobRef:
        """Start a job, or find it; see `JobLauncher`. A key that lost a race for a run folder is used up."""
        return await asyncio.to_thread(self._submit, job)

    async def find(self, key: str) -> JobRef | None:
        """The job of a key; SageMaker remembers every job."""
        names = await asyncio.to_thread(self._names, NameContains=short_hash(key))
        return self._ref(names[0], key) if names else None

    async def poll(self, ref: JobRef) -> JobState:
        """How it stands."""
        return await asyncio.to_thread(self._poll, ref.job_id)

    async def cancel(self, ref: JobRef, grace: timedelta) -> None:  # noqa: ARG002 - the protocol's
        """SageMaker's own way: SIGTERM, and SIGKILL after 120 s, whatever `grace` says."""
        if (await self.poll(ref)).over:
            return
        await asyncio.to_thread(self._stop, ref.job_id)
        while not (await self.poll(ref)).over:  # noqa: ASYNC110 - it ends elsewhere
            await asyncio.sleep(self._interval_s)

    async def logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        """What the first instance printed, as CloudWatch keeps it: a line per event."""
        return await asyncio.to_thread(self._logs, ref, after)

    def request(self, job: JobSpec) -> dict[str, Any]:
        """What SageMaker is asked for."""
        run = command(job, self._python, f"{_FIRST}:{_PORT}")
        runtime_s = job.wall_s or 5 * _DAY_S
        stopping = {"MaxRuntimeInSeconds": runtime_s}
        kept = {"CheckpointConfig": {"S3Uri": job.run_folder, "LocalPath": self._checkpoints}} if _in_s3(job) else {}
        if self._spot_wait_s is not None:
            stopping["MaxWaitTimeInSeconds"] = runtime_s + self._spot_wait_s
        return {
            "TrainingJobName": _name(job),
            "AlgorithmSpecification": {
                "TrainingImage": job.image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/sh", "-c", 'cd "$0" && exec "$@"', job.workdir],
                "ContainerArguments": run,
            },
            "RoleArn": self._role_arn,
            "OutputDataConfig": {"S3OutputPath": self._output or job.run_folder},
            "ResourceConfig": {
                "InstanceType": self._instance_type,
                "InstanceCount": job.nodes,
                "VolumeSizeInGB": self._volume_gb,
            },
            "StoppingCondition": stopping,
            "EnableManagedSpotTraining": self._spot_wait_s is not None,
            "RetryStrategy": {"MaximumRetryAttempts": self._start_attempts},
            "Environment": environment(job),
            "Tags": [{"Key": "wonder-run", "Value": _run(job.run_folder)}],
            **kept,
            **self._request,
        }

    def _ref(self, name: str, key: str) -> JobRef:
        return JobRef(kind=self.kind, job_id=name, key=key)

    def _submit(self, job: JobSpec) -> JobRef:
        if not _in_s3(job) and not self._output:
            raise JobRefused(
                f"{job.key} wants to run in {job.run_folder}, which is not in s3://: name a folder there, or `output` "
                "and a file system that jobs share"
            )
        name = _name(job)
        if name in self._names(NameContains=name):
            return self._ref(name, job.key)
        if rivals := [one for one in self._alive(job.run_folder) if one != name]:
            raise _conflict(job, rivals[0])
        try:
            self._call("create_training_job", **self.request(job))
        except self._answered as error:
            code, said = _told(error)
            if code == "ResourceInUse":
                return self._ref(name, job.key)
            if code in _REFUSED:
                raise JobRefused(
                    f"SageMaker refused {job.key} ({code}: {said}): correct the job or the rights"
                ) from None
            raise self._unavailable(error) from None
        # Two that looked before either was there: the one that SageMaker noted first stays.
        alive = self._alive(job.run_folder)
        if name in alive and alive[0] != name:
            self._stop(name)
            raise _conflict(job, alive[0])
        return self._ref(name, job.key)

    def _alive(self, run_folder: str) -> list[str]:
        """Names of the live jobs of a run folder, the oldest first."""
        found = [one for status in _ALIVE for one in self._listed(NameContains=_run(run_folder), StatusEquals=status)]
        return [one["TrainingJobName"] for one in sorted(found, key=_age)]

    def _names(self, **wanted: Any) -> list[str]:
        return [one["TrainingJobName"] for one in self._listed(**wanted)]

    def _listed(self, **wanted: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._asked("list_training_jobs", **wanted)
            found += page["TrainingJobSummaries"]
            if not page.get("NextToken"):
                return found
            wanted["NextToken"] = page["NextToken"]

    def _stop(self, name: str) -> None:
        try:
            self._call("stop_training_job", TrainingJobName=name)
        except self._answered as error:
            # It is over in the meantime, which the next poll finds out.
            if _told(error)[0] != "ValidationException":
                raise self._unavailable(error) from None

    def _poll(self, name: str) -> JobState:
        found = self._described(name)
        if found is None:
            return JobState(state="lost", reason=f"SageMaker knows no training job {name}")
        status, second = found["TrainingJobStatus"], found.get("SecondaryStatus", "")
        node = found.get("ResourceConfig", {}).get("InstanceType", "")
        if status in {"InProgress", "Stopping"}:
            state: State = "pending" if second in _WAITING and status == "InProgress" else "running"
            return JobState(state=state, reason="asked to stop" if status == "Stopping" else second, node=node)
        if second in _TIME_OVER:
            return JobState(state="failed", reason="time over", node=node)
        if status == "Completed":
            return JobState(state="succeeded", node=node, exit_code=0)
        if status == "Stopped":
            return JobState(state="cancelled", node=node)
        reason = found.get("FailureReason", "")
        code = re.search(r"exit code:? (\d+)", reason, re.I)
        return JobState(state="failed", reason=reason, node=node, exit_code=None if code is None else int(code[1]))

    def _described(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._call("describe_training_job", TrainingJobName=name)
        except self._answered as error:
            code, said = _told(error)
            if code == "ResourceNotFound" or (code == "ValidationException" and _ABSENT.search(said)):
                return None
            raise self._unavailable(error) from None
        return found

    def _logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        streams = self._asked_of_logs(
            "describe_log_streams", logGroupName=_GROUP, logStreamNamePrefix=f"{ref.job_id}/{_FIRST}"
        )
        if not streams.get("logStreams"):
            if self._described(ref.job_id) is None:
                raise JobLost(f"SageMaker knows no training job {ref.job_id}: it was started elsewhere")
            return b"", after
        stream = streams["logStreams"][0]["logStreamName"]
        with self._lock:
            offset, token = self._read.get(ref.job_id, (0, ""))
        if offset != after:
            offset, token = 0, ""
        found = bytearray()
        while len(found) < LOG_BYTES:
            where = {"nextToken": token} if token else {}
            page = self._asked_of_logs(
                "get_log_events", logGroupName=_GROUP, logStreamName=stream, startFromHead=True, **where
            )
            content = "".join(event["message"] + "\n" for event in page.get("events", ())).encode()
            found += content[max(0, after - offset) :]
            offset += len(content)
            if (following := page.get("nextForwardToken", token)) == token:
                break
            token = following
        with self._lock:
            self._read[ref.job_id] = (offset, token)
        return bytes(found), after + len(found)

    def _asked(self, operation: str, **wanted: Any) -> Any:
        try:
            return self._call(operation, **wanted)
        except self._answered as error:
            raise self._unavailable(error) from None

    def _asked_of_logs(self, operation: str, **wanted: Any) -> Any:
        try:
            return getattr(self._watch, operation)(**wanted)
        except self._answered as error:
            if _told(error)[0] == "ResourceNotFoundException":
                return {}
            raise self._unavailable(error) from None
        except self._failed as error:
            raise LauncherUnavailable(f"CloudWatch does not answer ({error}): try again") from None

    def _call(self, operation: str, **wanted: Any) -> Any:
        try:
            return getattr(self._client, operation)(**wanted)
        except self._failed as error:
            raise LauncherUnavailable(f"SageMaker does not answer ({error}): try again") from None

    def _unavailable(self, error: Exception) -> LauncherUnavailable:
        code, said = _told(error)
        return LauncherUnavailable(f"SageMaker said {code} ({said}): correct the rights if it names them, or try again")


def _in_s3(job: JobSpec) -> bool:
    return job.run_folder.startswith("s3://")


def _run(run_folder: str) -> str:
    return short_hash(run_folder.rstrip("/"))


def _name(job: JobSpec) -> str:
    """Letters, digits and hyphens, at most 63; found again by the hash of the key, and by that of the run folder."""
    return f"wonder-{_run(job.run_folder)}-{short_hash(job.key)}"


def _age(summary: dict[str, Any]) -> tuple[Any, str]:
    return summary["CreationTime"], summary["TrainingJobName"]


def _told(error: Exception) -> tuple[str, str]:
    answer: dict[str, Any] = getattr(error, "response", {}).get("Error", {})
    return str(answer.get("Code", "")), str(answer.get("Message", ""))


def _conflict(job: JobSpec, other: str) -> JobConflict:
    return JobConflict(
        f"training job {other} is alive and writes to {job.run_folder}, where {job.key} was to run: wait until it is "
        "over, or cancel it"
    )
