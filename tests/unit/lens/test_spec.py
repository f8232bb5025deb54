"""A specification that cannot be is answered with sentences."""

import json
from pathlib import Path
from typing import Any

import pytest

from lens_training.spec import DataSpec, load, parse
from wonder.errors import SpecError

GOOD: dict[str, Any] = {
    "folder": "data",
    "corpus": {"source": "jsonl", "path": "stories.jsonl"},
    "target": {"model": "some/model", "layer": 3},
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dumb": {}}, "dumb is no setting: did you mean dump?"),
        ({"dump": {"minimum_positon": 3}}, "dump.minimum_positon is no setting: did you mean minimum_position?"),
        ({"dump": {"shares": {"train": 0.9, "val": 0.3, "test": 0}}}, "sum to 1.2, and must sum to 1"),
        ({"dump": {"shares": {"train": 0, "val": 0.5, "test": 0.5}}}, "nothing to learn from"),
        ({"dump": {"minimum_position": 200}}, "lies outside contexts of context_length 128"),
        ({"dump": {"rows_per_shard": 5}}, "does not fit into rows_per_shard 5"),
        ({"dump": {"rows_per_shard": 100_000}}, "dump.rows_per_shard is 100000"),
        ({"dump": {"seed": -1}}, "dump.seed is -1"),
        ({"target": {"model": "some/model", "layer": -1}}, "target.layer is -1"),
        ({"target": {"model": "some/model"}}, "target.layer is missing"),
        ({"target": {"model": "some/model", "layer": 1, "dtype": "fp16"}}, "target.dtype is 'fp16'"),
        ({"corpus": {"source": "csv", "path": "x"}}, "corpus.source is 'csv'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse(DataSpec, GOOD | change)
    assert sentence in str(raised.value)


def test_the_digest_tells_what_was_said_not_how_it_was_written() -> None:
    spec = parse(DataSpec, GOOD)
    assert parse(DataSpec, dict(reversed(GOOD.items())) | {"dump": {"seed": 0}}).digest() == spec.digest()
    assert parse(DataSpec, GOOD | {"dump": {"seed": 1}}).digest() != spec.digest()


def test_a_file_that_is_not_there_or_not_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load(DataSpec, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SpecError, match="is not JSON"):
        load(DataSpec, tmp_path / "bad.json")
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    assert load(DataSpec, tmp_path / "good.json").tokenizer == "some/model"
