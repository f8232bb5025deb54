import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wonder.errors import ArtifactCorrupt, ArtifactMissing, SettingNotSupported, StoreNotUsable
from wonder.trace.artifacts import ArtifactRef, TensorSpec
from wonder.trace.store import DirectoryStore, open_store, try_out


def test_bytes_come_back_and_lie_under_their_digest(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    ref = store.put(b"abc", tensors={"x": TensorSpec(dtype="F32", shape=[2])}, content="test")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert (tmp_path / digest[:2] / digest).read_bytes() == b"abc"
    assert ref.uri == (tmp_path / digest[:2] / digest).as_uri()
    assert (ref.bytes, ref.tensors["x"].shape) == (3, [2])
    assert store.get(ref) == b"abc"
    assert store.put(b"abc").uri == ref.uri


def test_a_folder_with_unusual_letters_works(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "mit Ümlaut & 100 %")
    assert store.get(store.put(b"abc")) == b"abc"
    assert open_store(store.root.as_uri()).get(store.put(b"abc")) == b"abc"


@pytest.mark.parametrize("damage", [b"abd", b"ab", b"abcd", b""])
def test_changed_bytes_are_refused_and_written_anew_by_the_next_put(tmp_path: Path, damage: bytes) -> None:
    store = DirectoryStore(tmp_path)
    ref = store.put(b"abc")
    path = tmp_path / ref.sha256[:2] / ref.sha256
    path.write_bytes(damage)
    with pytest.raises(ArtifactCorrupt, match="restore it"):
        store.get(ref)
    assert store.get(store.put(b"abc")) == b"abc"


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    ref = store.put(b"abc")
    (tmp_path / ref.sha256[:2] / ref.sha256).unlink()
    with pytest.raises(ArtifactMissing, match="nothing is stored"):
        store.get(ref)


def test_a_reference_that_points_outside_the_store_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(b"abc")
    store = DirectoryStore(tmp_path / "store")
    good = store.put(b"abc")
    digest = good.sha256
    addresses = [
        outside.as_uri(),
        f"{store.root.as_uri()}/../secret",
        f"{store.root.as_uri()}/{digest[:2]}/../../secret",
        "s3://bucket/key",
        "http://example.org/x",
        str(outside),
    ]
    for uri in addresses:
        with pytest.raises(ArtifactMissing, match="not an address of the store"):
            store.get(good.model_copy(update={"uri": uri}))


def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    ref = store.put(b"abc")
    path = store.root / ref.sha256[:2] / ref.sha256
    path.unlink()
    (tmp_path / "secret").write_bytes(b"abc")
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactMissing, match="link"):
        store.get(ref)


def test_many_writers_of_the_same_bytes_leave_one_whole_file(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _: DirectoryStore(tmp_path).put(data), range(16)))
    assert len({ref.uri for ref in refs}) == 1
    assert DirectoryStore(tmp_path).get(refs[0]) == data
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [refs[0].sha256]


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingNotSupported, match="ftp://"):
        open_store("ftp://somewhere/else")


def test_a_reference_survives_json(tmp_path: Path) -> None:
    ref = DirectoryStore(tmp_path).put(b"abc", format="json")
    assert ArtifactRef.model_validate_json(ref.model_dump_json()) == ref


def test_a_store_says_where_it_keeps_a_digest(tmp_path: Path) -> None:
    ref = DirectoryStore(tmp_path).put(b"abc")
    assert DirectoryStore(tmp_path).uri(ref.sha256) == ref.uri


def test_a_store_that_takes_nothing_is_found_out_before_it_is_needed(tmp_path: Path) -> None:
    try_out(DirectoryStore(tmp_path / "new"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreNotUsable, match="takes no artifacts"):
        try_out(DirectoryStore(tmp_path / "file"))


def test_a_store_in_s3_without_boto3_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text("raise ImportError('not here')")
    code = "from wonder.trace.store import open_store; open_store('s3://bucket/prefix')"
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "ExtraMissing: an artifact store in S3 needs boto3" in done.stderr
    assert "pip install 'wonder-temporal[s3]'" in done.stderr
