"""The registry of lenses: versions never change, and an alias moves only where the gate lets it."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.lens.bundles import metrics, write
from wonder.engine.engine import TraceEngine
from wonder.errors import CorruptBundle, LensConflict, LensMismatch, LensNotPromoted, StoreNotUsable, UnknownLens
from wonder.lens.gate import Bars, judge
from wonder.lens.manifest import LensManifest, digest_of, read_manifest
from wonder.lens.registry import LensRegistry, find_bundles
from wonder.trace.explanation import Fidelity

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OPEN = Bars(beat_current=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lens") / "tiny"
    write(folder, byte_tokenizer())
    return folder


def like(bundle: Path, folder: Path, fve: float, **changes: Any) -> Path:
    """The same weights with another measured fidelity."""
    shutil.copytree(bundle, folder)
    document = json.loads((folder / "lens.json").read_text())
    document["metrics"] = metrics(fve, **{"data_sha256": document["metrics"]["data_sha256"], **changes}).model_dump()
    document["digest"] = digest_of(document)
    (folder / "lens.json").write_text(json.dumps(document))
    return folder


def registered(registry: LensRegistry, bundle: Path, folder: Path, fve: float, **changes: Any) -> LensManifest:
    return registry.register(like(bundle, folder, fve, **changes))


def test_a_version_is_kept_once_and_as_it_was(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    first, again = registry.register(bundle), registry.register(bundle)
    assert first == again == read_manifest(bundle)
    assert registry.versions("tiny") == [first]
    assert registry.version("tiny", first.id) == registry.version("tiny", (first.digest or "")[:6]) == first
    kept = {path.relative_to(registry.path(first)): path.read_bytes() for path in registry.path(first).rglob("*.*")}
    assert kept == {path.relative_to(bundle): path.read_bytes() for path in bundle.rglob("*.*")}
    assert registry.in_force("tiny", first.target.fingerprint) is None
    assert not list(registry.root.glob("**/*.part"))


def test_an_alias_moves_to_what_is_not_worse_and_to_nothing_else(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    good = registered(registry, bundle, tmp_path / "good", 0.80)
    as_good = registered(registry, bundle, tmp_path / "as_good", 0.79)  # its interval reaches 0.81
    worse = registered(registry, bundle, tmp_path / "worse", 0.70)
    fingerprint = good.target.fingerprint
    moved = registry.promote("tiny", good.id, Bars(), at=NOW)
    assert registry.in_force("tiny", fingerprint) == moved
    assert registry.promote("tiny", good.id, Bars(), at=NOW) == moved
    with pytest.raises(LensNotPromoted, match=r"worse than tiny@.*: 0.700 \[0.680, 0.720\] of the variance against"):
        registry.promote("tiny", worse.id, Bars(), at=NOW)
    assert registry.in_force("tiny", fingerprint) == moved
    after = registry.promote("tiny", as_good.id, Bars(), at=NOW)
    assert [move.version for move in after.moves] == [good.digest, as_good.digest]
    assert "not worse than" in after.moves[-1].because
    assert registry.promote("tiny", worse.id, OPEN, at=NOW).version == worse.digest
    other = registry.promote("tiny", good.id, Bars(), at=NOW, alias="candidate")
    assert (other.alias, other.version) == ("candidate", good.digest)


@pytest.mark.parametrize(
    ("changes", "bars", "told"),
    [
        ({"fve": 0.01}, Bars(), "the lower bound must reach 0.000"),
        ({"fve": 0.80}, Bars(minimum_fve=0.79), "the lower bound must reach 0.790"),
        (
            {"controls": {"shuffled": Fidelity(value=-0.01, low=-0.03, high=0.01, rows=512)}},
            Bars(),
            r"shuffled ones explain -0.010 \[-0.030, 0.010\]",
        ),
        ({"controls": {}}, Bars(), "was not measured with shuffled texts"),
        ({}, Bars(minimum_kl_recovered=0.81), r"KL recovered .* is 0.850 \[0.800, 0.900\]"),
        ({"kl_recovered": None}, Bars(minimum_kl_recovered=0.1), "is not measured"),
    ],
)
def test_a_lens_below_a_bar_does_not_come_into_force(
    changes: dict[str, Any], bars: Bars, told: str, bundle: Path, tmp_path: Path
) -> None:
    registry = LensRegistry(tmp_path / "registry")
    found = registered(registry, bundle, tmp_path / "made", **{"fve": 0.8, **changes})
    with pytest.raises(LensNotPromoted, match=told):
        registry.promote("tiny", found.id, bars, at=NOW)
    assert registry.entries() == []


def test_lenses_that_were_measured_on_different_states_do_not_compare(bundle: Path) -> None:
    one = read_manifest(bundle)
    elsewhere = one.metrics.model_copy(update={"data_sha256": "e" * 64})
    other = one.model_copy(update={"metrics": elsewhere})
    assert "measured on different states" in judge(one, other, Bars()).reason
    assert judge(one, other, Bars(minimum_fve=0.5, beat_current=False)).passed
    better = other.metrics.model_copy(update={"fve": Fidelity(value=0.9, low=0.89, high=0.91, rows=512)})
    assert not judge(other.model_copy(update={"metrics": better}), one, Bars()).passed


def test_two_who_move_at_once_do_not_overwrite_each_other(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    one = registered(registry, bundle, tmp_path / "one", 0.80)
    two = registered(registry, bundle, tmp_path / "two", 0.81)
    registry.promote("tiny", one.id, Bars(), at=NOW, replacing=None)
    with pytest.raises(LensConflict, match=r"points to .*, not nothing: somebody moved it"):
        registry.promote("tiny", two.id, Bars(), at=NOW, replacing=None)
    assert registry.promote("tiny", two.id, Bars(), at=NOW, replacing=one.digest).version == two.digest


def test_harm_is_found_when_a_version_comes_in_and_when_it_comes_into_force(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    harmed = like(bundle, tmp_path / "harmed", 0.8)
    (harmed / "decoder/config.json").write_text("{}")
    with pytest.raises(CorruptBundle):
        registry.register(harmed)
    assert registry.names() == []
    found = registry.register(bundle)
    (registry.path(found) / "encoder/config.json").write_text("{}")
    with pytest.raises(CorruptBundle):
        registry.promote("tiny", found.id, Bars(), at=NOW)
    entry = registry.root / "tiny/aliases/current" / f"{found.target.fingerprint[:32]}.json"
    entry.parent.mkdir(parents=True)
    entry.write_text('{"name": ')
    with pytest.raises(CorruptBundle, match="no entry of a registry"):
        registry.entries()


def test_what_is_not_there_is_said(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    registry.register(bundle)
    with pytest.raises(UnknownLens, match=r"no lens 'other' in .*, which has tiny"):
        registry.versions("other")
    with pytest.raises(UnknownLens, match="no versions of 'tiny' begin with ffffff"):
        registry.version("tiny", "ffffff")
    for name in ("../tiny", "Tiny", "a/b", ""):
        with pytest.raises(UnknownLens, match="no name of a lens"):
            registry.version(name, "ffffff")
    with pytest.raises(UnknownLens, match="is no version"):
        registry.version("tiny", "../..")
    with pytest.raises(UnknownLens, match="is no alias"):
        registry.in_force("tiny", "a" * 64, "../x")


def test_a_full_disk_leaves_nothing_behind(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    registry = LensRegistry(tmp_path / "registry")
    monkeypatch.setattr("wonder.lens.registry.shutil.copytree", full)
    with pytest.raises(StoreNotUsable, match="No space left on device"):
        registry.register(bundle)
    assert not list(registry.root.glob("**/lens.json"))
    assert not list(registry.root.glob("**/*.part"))


def test_a_worker_finds_what_is_in_force_for_its_weights(bundle: Path, tmp_path: Path) -> None:
    registry = LensRegistry(tmp_path / "registry")
    found = registry.register(bundle)
    fingerprint, path = found.target.fingerprint, registry.path(found)
    assert find_bundles(registry.root, fingerprint) == []
    with pytest.raises(UnknownLens, match="points to nothing for these weights"):
        find_bundles(registry.root / "tiny", fingerprint)
    registry.promote("tiny", found.id, Bars(), at=NOW)
    assert find_bundles(registry.root, fingerprint) == [path]
    assert find_bundles(registry.root, "e" * 64) == []
    assert find_bundles(registry.root / "tiny", fingerprint) == [path]
    assert find_bundles(registry.root / "tiny@current", fingerprint) == [path]
    assert find_bundles(registry.root / found.id, fingerprint) == [path]
    assert find_bundles(bundle, fingerprint) == [bundle]
    assert find_bundles(bundle.parent, fingerprint) == [bundle]
    tokenizer = byte_tokenizer()
    assert TraceEngine(build("llama"), tokenizer, lenses=[registry.root]).info.lenses == [found.id]
    assert TraceEngine(build("llama", seed=1), tokenizer, lenses=[registry.root]).info.lenses == []
    with pytest.raises(LensMismatch):
        TraceEngine(build("llama", seed=1), tokenizer, lenses=[registry.root / found.id])
