"""A table is found in whatever form somebody has written it."""

import json
from pathlib import Path

import pytest

from tests.unit.history.world import table
from wonder.errors import DefinitionError
from wonder.history.tables import load_table

SOURCE = """
from tests.unit.history.world import table
routes = table(0.8, "v2")
"""


def test_python_json_yaml_and_modules_give_the_same_table(tmp_path: Path) -> None:
    wanted = table(0.8, "v2")
    (tmp_path / "t.py").write_text(SOURCE)
    (tmp_path / "t.json").write_text(json.dumps(wanted.to_dict()))
    (tmp_path / "t.yaml").write_text(json.dumps(wanted.to_dict(), indent=1))
    for name in ("t.py", "t.py:routes", "t.json", "t.yaml"):
        assert load_table(str(tmp_path / name)).digest == wanted.digest
    assert load_table("examples.ticket_triage.workflow:routes").sources == ("classify",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.py", None, "there is no file"),
        ("t.py", "x = 1", "holds 0 tables"),
        ("t.py", "1/0", "does not load .ZeroDivisionError"),
        ("t.py", SOURCE + "other = table(0.5)", "holds 2 tables .routes, other.: name one as"),
        ("t.py:nope", SOURCE, "has no table 'nope'; it has routes"),
        ("t.json", "{", "cannot be read"),
        ("t.yaml", "a: [", "cannot be read"),
        ("t.json", "[]", "holds no table"),
        ("t.json", '{"rows": []}', "a table needs at least one row"),
        ("no.such.module", None, "cannot import"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    where = str(tmp_path / name) if "." in name and not name.startswith("no.") else name
    if content is not None:
        (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(DefinitionError, match=message):
        load_table(where)
