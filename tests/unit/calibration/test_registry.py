import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.calibration.bundles import NOW, bundle, trace
from wonder.calibration.registry import CalibrationRegistry, Drift
from wonder.errors import CalibrationConflict, CorruptBundle


def test_a_promoted_bundle_is_in_force_for_its_model_and_action_only(tmp_path: Path) -> None:
    registry, made = CalibrationRegistry(tmp_path), bundle()
    assert registry.for_trace(trace()) == (None, "")
    registry.promote(made, at=NOW, because="the first")
    assert registry.for_trace(trace()) == (made, "")
    assert registry.for_trace(trace(model="the same weights under another name")) == (made, "")
    assert registry.for_trace(trace(action="draft"))[0] is None
    assert registry.for_trace(trace(model_fingerprint="a" * 64))[0] is None
    assert [entry.bundle for entry in registry.entries()] == [made.id]


def test_a_move_names_what_it_replaces_and_is_refused_when_somebody_was_faster(tmp_path: Path) -> None:
    registry = CalibrationRegistry(tmp_path)
    first, second, third = bundle(), bundle(wrong=101), bundle(wrong=102)
    registry.promote(first, at=NOW)
    registry.promote(second, at=NOW + timedelta(days=1), because="newer", replacing=first.id)
    with pytest.raises(CalibrationConflict, match="somebody moved it meanwhile"):
        registry.promote(third, at=NOW, replacing=first.id)
    with pytest.raises(CalibrationConflict):
        registry.promote(third, at=NOW)
    entry = registry.in_force("classify", "m", fingerprint="f" * 64)
    assert entry is not None
    assert [(move.bundle, move.because) for move in entry.moves] == [(first.id, ""), (second.id, "newer")]
    assert registry.get(first.id) == first


def _race(root: Path, wrong: int) -> bool:
    try:
        CalibrationRegistry(root).promote(bundle(wrong=wrong), at=NOW, replacing=bundle().id)
    except CalibrationConflict:
        return False
    return True


def test_of_many_that_move_at_once_one_wins(tmp_path: Path) -> None:
    CalibrationRegistry(tmp_path).promote(bundle(), at=NOW)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        won = pool.starmap(_race, [(tmp_path, wrong) for wrong in range(101, 109)])
    assert sum(won) == 1


def test_a_drifted_calibration_is_out_of_force_until_the_next_one(tmp_path: Path) -> None:
    registry, first = CalibrationRegistry(tmp_path), bundle()
    registry.promote(first, at=NOW)
    registry.mark_drift(first, Drift(found_at=NOW, because="people overrule 31 % of what is accepted"))
    found, reason = registry.for_trace(trace())
    assert found is None
    assert reason.startswith("drifted: ")
    assert "people overrule 31 %" in reason
    registry.promote(bundle(wrong=101), at=NOW, replacing=first.id)
    assert registry.for_trace(trace()) == (bundle(wrong=101), "")
    with pytest.raises(CalibrationConflict):
        registry.mark_drift(first, None)


def test_what_was_changed_on_disk_is_refused(tmp_path: Path) -> None:
    registry, made = CalibrationRegistry(tmp_path), bundle()
    registry.promote(made, at=NOW)
    path = tmp_path / "bundles" / f"{made.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"wrong":100', b'"wrong":0'))
    with pytest.raises(CorruptBundle, match="it was changed"):
        registry.for_trace(trace())
    path.unlink()
    with pytest.raises(CorruptBundle, match="cannot be read"):
        registry.for_trace(trace())
    next(tmp_path.glob("in_force/*/*.json")).write_text("{")
    with pytest.raises(CorruptBundle, match="not an entry"):
        registry.for_trace(trace())


@pytest.mark.parametrize("action", ["../../evil", "Klassifizieren", "a/b", "", "x" * 300, "ticket.classify"])
def test_any_name_of_an_action_makes_one_file_inside(action: str, tmp_path: Path) -> None:
    registry, made = CalibrationRegistry(tmp_path / "root"), bundle(action=action)
    registry.promote(made, at=NOW)
    assert registry.for_trace(trace(action=action)) == (made, "")
    assert {path.name for path in tmp_path.iterdir()} == {"root"}
    (entry,) = registry.root.glob("in_force/*/*.json")
    assert entry.parent.parent.parent == registry.root


def test_an_id_that_is_no_digest_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="64 hexadecimal digits"):
        CalibrationRegistry(tmp_path).get("../../../etc/passwd")
