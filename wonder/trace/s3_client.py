"""The boto3 client of an S3 store, and its failures as sentences; the only place that meets boto3."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from wonder.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactMissing,
    ExtraMissing,
    StoreNotReachable,
    StoreNotUsable,
)

ATTEMPTS: Final = 4
CONNECT_S: Final = 5
READ_S: Final = 60
POOL: Final = 16
"""Connections kept open: parts of an upload and several requests at once."""

NO_ACCESS: Final = frozenset(
    {
        "403",
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthFailure",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
BUSY: Final = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "XAmzContentSHA256Mismatch",
    }
)


@dataclass(frozen=True)
class Failures:
    """The exceptions of botocore, which is there only once it has been asked for."""

    all: tuple[type[Exception], ...]
    refused: type[Exception]
    """The server answered with an error; its code is `code_of(error)`."""
    broken_body: tuple[type[Exception], ...]
    no_credentials: tuple[type[Exception], ...]
    no_answer: tuple[type[Exception], ...]
    wrong_checksum: type[Exception]

    def explain(self, error: Exception, uri: str, bucket: str, endpoint: str) -> ArtifactError:
        """The error of Wonder for one of botocore, in a sentence that says what to do."""
        if isinstance(error, self.refused):
            return _explain_answer(error, uri, bucket, endpoint)
        if isinstance(error, self.wrong_checksum):
            return ArtifactCorrupt(f"{uri} does not have its checksum ({error}): restore it from a version or a backup")
        if isinstance(error, self.no_credentials):
            return StoreNotUsable(
                f"no usable credentials for s3://{bucket} ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "AWS_PROFILE, or give the machine a role"
            )
        if isinstance(error, (*self.no_answer, *self.broken_body)):
            return StoreNotReachable(
                f"no whole answer from {_host(endpoint)} for s3://{bucket} ({type(error).__name__}): check "
                "AWS_ENDPOINT_URL and the network"
            )
        return StoreNotUsable(
            f"s3://{bucket} at {_host(endpoint)} cannot be used ({type(error).__name__}: {error}): check the address"
        )


def failures() -> Failures:
    """Botocore's exceptions.

    Raises:
        ExtraMissing: It is not installed.
    """
    exceptions = _boto()[1].exceptions
    names = ("ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError")
    credentials = (
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOError",
        "ProfileNotFound",
    )
    return Failures(
        all=(exceptions.ClientError, exceptions.BotoCoreError),
        refused=exceptions.ClientError,
        broken_body=tuple(getattr(exceptions, name) for name in names),
        no_credentials=tuple(getattr(exceptions, name) for name in credentials),
        no_answer=(exceptions.HTTPClientError, exceptions.ConnectionError),
        wrong_checksum=exceptions.FlexibleChecksumError,
    )


def connect(endpoint_url: str | None, region: str | None) -> Any:
    """A client of S3; nothing is sent.

    Raises:
        ExtraMissing: boto3 is not installed.
        StoreNotUsable: The endpoint or the profile cannot be used.
    """
    boto3, botocore = _boto()
    config = botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=POOL,
        response_checksum_validation="when_required",  # every read is checked against its sha256 already
    )
    try:
        # A session of its own: the default one is not for several threads.
        session = boto3.session.Session()
        client = session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
        if "amazonaws." in (urlsplit(client.meta.endpoint_url).hostname or ""):
            return client
        # Elsewhere buckets rarely have host names of their own.
        by_path = config.merge(botocore.config.Config(s3={"addressing_style": "path"}))
        return session.client("s3", endpoint_url=endpoint_url, region_name=region, config=by_path)
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise StoreNotUsable(
            f"boto3 cannot make a client for S3 ({error}): check AWS_ENDPOINT_URL, AWS_PROFILE and the region"
        ) from error


def code_of(error: Exception) -> str:
    """The code of a server's error, for example `NoSuchKey`; a HEAD has no body, so there it is the status."""
    response: dict[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _explain_answer(error: Exception, uri: str, bucket: str, endpoint: str) -> ArtifactError:
    code, response = code_of(error), getattr(error, "response", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ("NoSuchKey", "404"):
        return ArtifactMissing(f"nothing is stored at {uri}: it was removed, or a rule of the bucket expired it")
    if code == "NoSuchBucket":
        return StoreNotUsable(f"there is no bucket {bucket!r} at {_host(endpoint)}: create it, or correct the address")
    if code in NO_ACCESS:
        return StoreNotUsable(
            f"{_host(endpoint)} refuses access to {uri} ({code}): give these credentials s3:GetObject, s3:PutObject "
            f"and s3:ListBucket on {bucket!r}, or use others"
        )
    if code in BUSY or status >= 500:
        return StoreNotReachable(
            f"{_host(endpoint)} cannot serve s3://{bucket} now ({code or status}): try again later"
        )
    return StoreNotUsable(f"{_host(endpoint)} refuses {uri} ({error}): check the bucket, its region and its policy")


def _host(endpoint: str) -> str:
    """The endpoint without a user name or password somebody may have put into it."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _boto() -> tuple[Any, Any]:
    try:
        # Optional, and workflow code imports the modules above this one.
        import boto3  # noqa: PLC0415
        import botocore.config  # noqa: PLC0415
        import botocore.exceptions  # noqa: PLC0415
    except ImportError:
        raise ExtraMissing(
            "an artifact store in S3 needs boto3, which is not installed: pip install 'wonder-temporal[s3]'"
        ) from None
    return boto3, botocore
