"""The artifact store in S3, against a real server of its protocol on this machine."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from safetensors.torch import load

from wonder.engine import Request, TraceEngine
from wonder.engine.raw import capture
from wonder.engine.raw_data import RawCapture, RawDataset, RawManifest
from wonder.errors import ArtifactCorrupt, ArtifactMissing, SettingNotSupported, StoreNotReachable, StoreNotUsable
from wonder.trace.artifacts import TensorSpec
from wonder.trace.capture import ThoughtCapture
from wonder.trace.s3 import PART_BYTES, S3Store
from wonder.trace.sampling import Sampling
from wonder.trace.store import open_store, try_out

BUCKET = "wonder-tests"
LARGE = bytes(range(256)) * (2 * PART_BYTES // 256) + b"the last, short part"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A process that speaks S3 and IAM; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(autouse=True)
def _surroundings(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a worker finds: only boto3's own variables, and none of this machine's settings."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(server: str) -> Iterator[Any]:
    """An administrator's client; the bucket is empty, and keeps every version of an object."""
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    yield client
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"), timeout=20)


@pytest.fixture
def store(s3: Any) -> S3Store:
    found = open_store(f"s3://{BUCKET}/team/traces")
    assert isinstance(found, S3Store)
    return found


@pytest.fixture
def rights(server: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Turn access control on, and go on as a user who may do only this."""

    def become(*actions: str) -> None:
        iam = boto3.client("iam")
        iam.create_user(UserName="worker")
        statement = ",".join(f'"{action}"' for action in actions)
        policy = f'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":[{statement}],"Resource":"*"}}]}}'
        iam.put_user_policy(UserName="worker", PolicyName="worker", PolicyDocument=policy)
        key = iam.create_access_key(UserName="worker")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        _access_control(server, "0")

    yield become
    _access_control(server, "inf")


def test_bytes_come_back_and_lie_under_their_digest(s3: Any, store: S3Store) -> None:
    ref = store.put(b"abc", tensors={"x": TensorSpec(dtype="F32", shape=[2])}, content="test")
    assert ref.uri == f"s3://{BUCKET}/team/traces/{ref.sha256[:2]}/{ref.sha256}"
    assert ref.uri == store.uri(ref.sha256)
    stored = s3.get_object(Bucket=BUCKET, Key=_key(ref.uri), ChecksumMode="ENABLED")
    assert stored["Body"].read() == b"abc"
    assert stored["ChecksumSHA256"], "the server was not given the checksum to hold the bytes against"
    assert (ref.bytes, ref.tensors["x"].shape) == (3, [2])
    assert open_store(f"s3://{BUCKET}/team/traces/").get(ref) == b"abc"


@pytest.mark.parametrize("data", [b"", b"abc", LARGE], ids=["nothing", "small", "parts"])
def test_the_same_bytes_are_written_once(s3: Any, store: S3Store, data: bytes) -> None:
    refs = [store.put(data) for _ in range(3)]
    assert len({ref.uri for ref in refs}) == 1
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 1
    assert store.get(refs[0]) == data


def test_many_writers_of_the_same_bytes_leave_one_version(s3: Any, store: S3Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _: store.put(b"abc"), range(16)))
    assert len({ref.uri for ref in refs}) == 1
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 1


def test_a_large_artifact_travels_in_parts_and_leaves_no_upload_open(s3: Any, store: S3Store) -> None:
    ref = store.put(LARGE)
    head = s3.head_object(Bucket=BUCKET, Key=_key(ref.uri))
    assert head["ETag"].strip('"').endswith("-3")
    assert store.get(ref) == LARGE
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def test_an_upload_that_fails_midway_is_taken_back(s3: Any) -> None:
    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        return _answer(request, 403, "AccessDenied") if "partNumber=2" in request.url else None

    client = boto3.client("s3")
    client.meta.events.register("before-send.s3.UploadPart", refuse)
    with pytest.raises(StoreNotUsable, match="AccessDenied"):
        S3Store(f"s3://{BUCKET}", client=client).put(LARGE)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


@pytest.mark.parametrize("damage", [b"abd", b"ab", b"abcd", b""])
def test_changed_bytes_are_refused_and_written_anew_by_the_next_put(s3: Any, store: S3Store, damage: bytes) -> None:
    ref = store.put(b"abc")
    s3.put_object(Bucket=BUCKET, Key=_key(ref.uri), Body=damage)
    with pytest.raises(ArtifactCorrupt, match="restore it"):
        store.get(ref)
    assert store.get(store.put(b"abc")) == b"abc"


def test_changed_bytes_of_a_large_artifact_are_refused_and_written_anew(s3: Any, store: S3Store) -> None:
    ref = store.put(LARGE)
    s3.put_object(Bucket=BUCKET, Key=_key(ref.uri), Body=b"x" + LARGE[1:])
    with pytest.raises(ArtifactCorrupt, match="bytes were changed"):
        store.get(ref)
    assert store.get(store.put(LARGE)) == LARGE


def test_what_is_not_there_is_missing(s3: Any, store: S3Store) -> None:
    ref = store.put(b"abc")
    s3.delete_object(Bucket=BUCKET, Key=_key(ref.uri))
    with pytest.raises(ArtifactMissing, match="nothing is stored at s3://"):
        store.get(ref)


def test_a_reference_that_points_outside_the_store_is_refused(s3: Any, store: S3Store) -> None:
    s3.put_object(Bucket=BUCKET, Key="secret", Body=b"abc")
    good = store.put(b"abc")
    for uri in (f"s3://{BUCKET}/secret", f"s3://other/{_key(good.uri)}", good.uri + "/../secret", "file:///etc/passwd"):
        with pytest.raises(ArtifactMissing, match="not an address of the store"):
            store.get(good.model_copy(update={"uri": uri}))


def test_a_missing_bucket_is_a_sentence(s3: Any, store: S3Store) -> None:
    elsewhere = S3Store("s3://nobody-made-this/x")
    for call in (lambda: elsewhere.put(b"abc"), lambda: elsewhere.put(LARGE), lambda: try_out(elsewhere)):
        with pytest.raises(StoreNotUsable, match="there is no bucket 'nobody-made-this' at http://127"):
            call()
    ref = store.put(b"abc")
    with pytest.raises(StoreNotUsable, match="there is no bucket"):
        elsewhere.get(ref.model_copy(update={"uri": elsewhere.uri(ref.sha256)}))


def test_wrong_credentials_are_a_sentence(
    store: S3Store, rights: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put(b"abc")
    rights("s3:*")
    S3Store(f"s3://{BUCKET}").put(b"allowed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY0000000000")
    stranger = S3Store(f"s3://{BUCKET}/team/traces")
    for call in (lambda: stranger.put(b"new"), lambda: stranger.put(LARGE), lambda: stranger.get(ref)):
        with pytest.raises(StoreNotUsable, match=r"refuses access .* give these credentials s3:GetObject"):
            call()


def test_a_worker_that_may_only_write_keeps_artifacts_but_reads_none(
    server: str, store: S3Store, rights: Callable[..., None]
) -> None:
    rights("s3:PutObject")
    writer = S3Store(f"s3://{BUCKET}/team/traces")
    refs = [writer.put(b"abc"), writer.put(b"abc")]
    large = [writer.put(LARGE), writer.put(LARGE)]
    with pytest.raises(StoreNotUsable, match="AccessDenied"):
        writer.get(refs[0])
    _access_control(server, "inf")
    assert store.get(refs[1]) == b"abc"
    assert store.get(large[1]) == LARGE


def test_no_credentials_are_a_sentence(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreNotUsable, match="no usable credentials"):
        S3Store(f"s3://{BUCKET}").put(b"abc")


def test_a_server_that_does_not_answer_is_a_sentence_and_worth_another_try() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://user:secret@127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(StoreNotReachable, match="no whole answer from http://127") as caught:
        S3Store(f"s3://{BUCKET}", endpoint_url=address).put(b"abc")
    assert caught.value.retryable
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["not an address", "http://"])
def test_an_endpoint_that_is_none_is_a_sentence(endpoint: str) -> None:
    with pytest.raises(StoreNotUsable, match="AWS_ENDPOINT_URL"):
        S3Store(f"s3://{BUCKET}", endpoint_url=endpoint)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x", "s3://user:secret@bucket/x", "s3://bucket/a/../b", "s3://b/x?y=1"])
def test_an_address_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(SettingNotSupported, match="names no bucket"):
        open_store(uri)


def test_a_server_without_conditional_writes_still_gets_the_bytes_once(s3: Any) -> None:
    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        return _answer(request, 501, "NotImplemented") if "If-None-Match" in request.headers else None

    client = boto3.client("s3")
    client.meta.events.register("before-send.s3", refuse)
    store = S3Store(f"s3://{BUCKET}", client=client)
    for data in (b"abc", LARGE):
        refs = [store.put(data), store.put(data)]
        assert store.get(refs[1]) == data
    assert len(s3.list_object_versions(Bucket=BUCKET)["Versions"]) == 2


def test_a_body_that_breaks_off_is_asked_for_again(store: S3Store) -> None:
    ref = store.put(b"abc")
    asked: list[str] = []

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"abc" if len(asked) == 3 else b"a")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as breaking:
        threading.Thread(target=breaking.serve_forever, daemon=True).start()
        there = S3Store(f"s3://{BUCKET}/team/traces", endpoint_url=f"http://localhost:{breaking.server_address[1]}")
        assert there.get(ref) == b"abc"
        breaking.shutdown()
    assert len(asked) == 3
    assert {path.split("?")[0] for path in asked} == {f"/{BUCKET}/{_key(ref.uri)}"}, "the bucket is not in the path"


def test_hidden_states_of_a_real_model_go_to_the_bucket(s3: Any) -> None:
    store = open_store(f"s3://{BUCKET}/engine")
    engine = TraceEngine.load(device="cpu", store=store)
    request = Request(
        prompt="Ticket: my invoice is wrong\nAnswer:",
        sampling=Sampling(max_new_tokens=4),
        capture=ThoughtCapture(capture_hidden_states=[0, 1], store_in="both"),
    )
    trace = engine.generate_one(request).thought_trace
    assert trace is not None
    assert [ref.format for ref in trace.artifacts] == ["safetensors", "json"]
    assert all(ref.uri.startswith(f"s3://{BUCKET}/engine/") for ref in trace.artifacts)
    assert load(store.get(trace.artifacts[0]))["hidden.layers"].tolist() == [0, 1]
    assert engine.generate_one(request).thought_trace.artifacts[0] == trace.artifacts[0]  # type: ignore[union-attr]


def test_raw_states_go_to_the_bucket_and_an_interrupted_capture_goes_on(s3: Any) -> None:
    store = open_store(f"s3://{BUCKET}/raw")
    engine = TraceEngine.load(device="cpu", store=store)
    texts = ["My invoice is wrong.", "The parcel never came.", "I cannot log in.", "Where is my refund?"]
    settings = RawCapture(layers=[1], positions="last", rows_per_shard=1)
    kept: list[RawManifest] = []

    def stop(manifest: RawManifest) -> None:
        kept.append(manifest)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(engine, texts, settings, store, on_shard=stop)
    done = capture(engine, texts, settings, store, resume=kept[-1])
    assert (done.kept, done.written) == (2, 2)
    dataset = RawDataset.open(open_store(f"s3://{BUCKET}/raw"), done.ref)
    assert [shard["text"].tolist() for shard in dataset] == [[0], [1], [2], [3]]
    ref = done.manifest.shards[3].ref
    s3.put_object(Bucket=BUCKET, Key=_key(ref.uri), Body=bytes(ref.bytes))
    with pytest.raises(ArtifactCorrupt, match="bytes were changed"):
        list(dataset)


def test_a_worker_whose_bucket_is_missing_stops_before_it_takes_work(s3: Any) -> None:
    command = [sys.executable, "-m", "workers.gpu", "--artifacts", "s3://nobody-made-this/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("wonder: there is no bucket 'nobody-made-this'")
    assert "Traceback" not in done.stderr


def _key(uri: str) -> str:
    return uri.removeprefix(f"s3://{BUCKET}/")


def _access_control(server: str, after: str) -> None:
    """Let the server check rights after this many calls."""
    address, plain = f"{server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(address, after.encode(), plain, method="POST"), timeout=20)


def _answer(request: Any, status: int, code: str) -> AWSResponse:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    class Raw:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield body

    return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, Raw())
