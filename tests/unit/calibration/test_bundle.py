import json
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.calibration.bundles import NOW, bundle
from wonder.calibration.bundle import BUNDLE_LIMIT_BYTES, canonical, digest, read_bundle
from wonder.calibration.certify import GRID, Certification
from wonder.calibration.maps import MOST_KNOTS, VennAbersMap
from wonder.errors import CorruptBundle


def test_a_bundle_is_named_by_its_content_and_read_back_whole() -> None:
    made = bundle()
    assert made.id == digest(made.document())
    assert read_bundle(canonical(made.document()), "here") == made
    assert bundle().id == made.id
    assert bundle(wrong=101).id != made.id


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    content = bytearray(canonical(bundle().document()))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(32, 126).filter(lambda byte: byte != content[at]))
    with pytest.raises(CorruptBundle, match="here"):
        read_bundle(bytes(content), "here")


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95", b"[]", b"{}", b'{"id": 3}', b"[" * 4000, b"x" * 5000])
def test_what_is_no_bundle_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(CorruptBundle, match="here"):
        read_bundle(content, "here")


def test_a_bundle_of_a_newer_version_can_still_be_read() -> None:
    newer = bundle().document() | {"of_the_future": 1}
    newer["id"] = digest(newer)
    assert read_bundle(canonical(newer), "here").labels == 400


def test_the_largest_bundle_stays_below_its_limit() -> None:
    numbers = [round(0.123456 + i / 100, 6) for i in range(MOST_KNOTS)]
    large = bundle(
        map=VennAbersMap(x=numbers, p0=numbers, p1=numbers),
        certification=Certification(grid=list(GRID), kept=[99999] * 22, wrong=[0] * 22, labels=100000),
        shares=[0.123456] * 21,
        reference={f"{i}_value_probability": [0.123456] * 21 for i in range(4)},
        parent="e" * 64,
        since=NOW,
        until=NOW,
    )
    assert len(canonical(large.document())) <= BUNDLE_LIMIT_BYTES
    assert large.created_at.tzinfo is UTC


def test_a_share_of_the_traffic_is_a_quantile() -> None:
    made = bundle(shares=[i / 20 for i in range(21)])
    assert made.for_share(0.3) == pytest.approx(0.3)
    assert made.for_share(1.0) == 1.0
    assert bundle().for_share(0.3) is None


def test_a_document_holds_no_more_than_json() -> None:
    assert json.loads(canonical(bundle().document()))["created_at"] == "2026-11-20T12:00:00Z"
