"""Artifacts in a bucket, of S3 or of any server that speaks its protocol."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from wonder.errors import ArtifactCorrupt, ArtifactMissing, SettingNotSupported
from wonder.trace.artifacts import ArtifactRef, TensorSpec
from wonder.trace.s3_client import Failures, code_of, connect, failures

PART_BYTES: Final = 8 * 2**20
"""Larger artifacts are sent in parts of this size, or of a larger one where there would be too many."""
MAX_PARTS: Final = 10_000
SENDERS: Final = 4
"""Parts on their way at the same time."""
READS: Final = 3
"""Attempts at a body that breaks off; the client repeats only what fails before the body."""
CONFLICTS: Final = 5
TAKEN: Final = ("PreconditionFailed", "412", "NoSuchUpload")
"""There is something at that key already; or the call was repeated because its first answer was lost."""
NOT_CONDITIONAL: Final = ("NotImplemented", "501")

Condition = Mapping[str, str]


class S3Store:
    """Keys `<prefix>/<first two digits>/<sha256>`, written once; safe to use from several threads.

    Credentials come from boto3's default chain (environment, shared files, instance or container role) and from
    nowhere else. So do the region and the endpoint, unless they are given. A writer needs `s3:PutObject`, a reader
    `s3:GetObject`; with `s3:ListBucket` a missing object is told apart from a forbidden one.
    """

    def __init__(
        self, uri: str, *, endpoint_url: str | None = None, region: str | None = None, client: Any = None
    ) -> None:
        """Nothing is sent yet.

        Args:
            uri: `s3://bucket` or `s3://bucket/prefix`.
            endpoint_url: Another server than AWS; its buckets are addressed by path. None: as boto3 finds it, for
                example in `AWS_ENDPOINT_URL`.
            region: None: as boto3 finds it.
            client: A ready boto3 client for S3; then `endpoint_url` and `region` are not looked at.

        Raises:
            SettingNotSupported: The address names no bucket.
            ExtraMissing: boto3 is not installed.
            StoreNotUsable: boto3 cannot make a client from its configuration.
        """
        self.bucket, self.prefix = _parts_of(uri)
        self._failures: Failures = failures()
        self._client: Any = connect(endpoint_url, region) if client is None else client

    def __repr__(self) -> str:
        return f"S3Store({self._uri('')!r})"

    def put(
        self,
        data: bytes,
        *,
        format: Literal["safetensors", "json"] = "safetensors",
        tensors: Mapping[str, TensorSpec] | None = None,
        content: str = "",
    ) -> ArtifactRef:
        """Keep the bytes, unless the bucket has them whole already.

        Raises:
            StoreNotUsable: No such bucket, or no access to it.
            StoreNotReachable: The server does not answer, or cannot now.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self._explained(self.uri(digest)):
            (self._put_whole if len(data) <= PART_BYTES else self._put_parts)(data, digest)
        return ArtifactRef(
            uri=self.uri(digest),
            sha256=digest,
            bytes=len(data),
            format=format,
            tensors=dict(tensors or {}),
            content=content,
        )

    def get(self, ref: ArtifactRef) -> bytes:
        """The bytes of a reference.

        Raises:
            ArtifactMissing: Nothing is stored there, or the address is not of this store.
            ArtifactCorrupt: The bytes are not those that were stored.
            StoreNotUsable: No such bucket, or no access to it.
            StoreNotReachable: The server does not answer, or cannot now.
        """
        want = self.uri(ref.sha256)
        if ref.uri != want:
            raise ArtifactMissing(
                f"{ref.uri} is not an address of the store {self._uri('')}, which keeps these bytes at {want}: "
                "open the store that wrote it"
            )
        with self._explained(want):
            data = self._read(self._key(ref.sha256), ref)
        found = hashlib.sha256(data).hexdigest()
        if found != ref.sha256:
            raise ArtifactCorrupt(
                f"{ref.uri} has sha256 {found[:12]}…, wanted {ref.sha256[:12]}…: its bytes were changed; "
                "restore it from a version or a backup"
            )
        return data

    def uri(self, sha256: str) -> str:
        return self._uri(f"{sha256[:2]}/{sha256}")

    def _uri(self, rest: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{rest}"

    def _key(self, digest: str) -> str:
        return f"{self.prefix}{digest[:2]}/{digest}"

    def _read(self, key: str, ref: ArtifactRef) -> bytes:
        for attempt in range(1, READS + 1):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] != ref.bytes:
                    raise ArtifactCorrupt(
                        f"{ref.uri} has {answer['ContentLength']} bytes, wanted {ref.bytes}: "
                        "restore it from a version or a backup"
                    )
                try:
                    return bytes(body.read())
                except self._failures.broken_body:
                    if attempt == READS:
                        raise
        raise AssertionError("unreachable")

    def _put_whole(self, data: bytes, digest: str) -> None:
        key, checksum = self._key(digest), _base64(bytes.fromhex(digest))

        def write(condition: Condition) -> None:
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=data,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                **condition,
            )

        if not self._once(key, write) and self._holds(key, data, digest, checksum) is False:
            write({})

    def _put_parts(self, data: bytes, digest: str) -> None:
        key, size = self._key(digest), max(PART_BYTES, -(-len(data) // MAX_PARTS))
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        digests = [hashlib.sha256(piece).digest() for piece in pieces]
        checksum = f"{_base64(hashlib.sha256(b''.join(digests)).digest())}-{len(pieces)}"
        if self._holds(key, data, digest, checksum):
            return
        upload = {"Bucket": self.bucket, "Key": key}
        upload["UploadId"] = self._client.create_multipart_upload(**upload, ChecksumAlgorithm="SHA256")["UploadId"]

        def send(at: int) -> dict[str, Any]:
            part = {"PartNumber": at + 1, "ChecksumSHA256": _base64(digests[at])}
            answer = self._client.upload_part(**upload, **part, Body=pieces[at], ChecksumAlgorithm="SHA256")
            return {**part, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(SENDERS) as pool:
                parts = list(pool.map(send, range(len(pieces))))

            def write(condition: Condition) -> None:
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **condition)

            if not self._once(key, write):
                if self._holds(key, data, digest, checksum) is False:
                    write({})
                else:
                    self._give_up(upload)
        except BaseException:
            self._give_up(upload)
            raise

    def _give_up(self, upload: dict[str, str]) -> None:
        """Parts that were sent cost money until they are taken back; a bucket rule catches what this does not."""
        try:
            self._client.abort_multipart_upload(**upload)
        except self._failures.all:
            return

    def _once(self, key: str, write: Callable[[Condition], None]) -> bool:
        """Write only if nothing is there; whether it was written."""
        for attempt in range(CONFLICTS):
            try:
                write({"IfNoneMatch": "*"})
            except self._failures.refused as error:
                code = code_of(error)
                if code in NOT_CONDITIONAL:
                    if self._size(key) is not None:
                        return False
                    write({})
                    return True
                if code in TAKEN:
                    return False
                if code != "ConditionalRequestConflict":
                    raise
                threading.Event().wait(0.05 * 2**attempt)  # somebody writes the same bytes right now
            else:
                return True
        return False

    def _size(self, key: str) -> int | None:
        try:
            return int(self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
        except self._failures.refused as error:
            if code_of(error) in ("404", "403", "NoSuchKey"):
                return None
            raise

    def _holds(self, key: str, data: bytes, digest: str, checksum: str) -> bool | None:
        """Whether the bucket has these bytes whole; None: it does not let us look, and readers check for themselves."""
        try:
            head = self._client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            if head["ContentLength"] != len(data):
                return False
            # The server computed this when it took the bytes, so that they need not be fetched.
            if head.get("ChecksumSHA256") == checksum:
                return True
            with closing(self._client.get_object(Bucket=self.bucket, Key=key)["Body"]) as body:
                return hashlib.sha256(body.read()).hexdigest() == digest
        except self._failures.refused as error:
            if code_of(error) in ("404", "NoSuchKey"):
                return False
            if code_of(error) in ("403", "AccessDenied"):
                return None
            raise

    @contextmanager
    def _explained(self, uri: str) -> Iterator[None]:
        try:
            yield
        except self._failures.all as error:
            raise self._failures.explain(error, uri, self.bucket, self._client.meta.endpoint_url) from error


def _parts_of(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a slash at its end or nothing."""
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    parts = [part for part in prefix.split("/") if part]
    if scheme != "s3" or not bucket or "@" in bucket or ".." in parts or urlsplit(uri).query:
        raise SettingNotSupported(f"{uri!r} names no bucket: write s3://bucket or s3://bucket/prefix")
    return bucket, "".join(f"{part}/" for part in parts)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
