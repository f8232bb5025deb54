"""The stages from the command line: what they print, and how they leave."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lens_training.__main__ import EXIT, main
from lens_training.rates import Ticker, duration
from lens_training.tokens import TokenStore
from tests.unit.lens.conftest import Specify, content
from wonder import errors
from wonder.errors import WonderError

LIGHT = ["spec", "artifacts", "rates", "corpus", "launch.options"]


def test_a_corpus_becomes_a_dump_in_slices_and_at_once(
    specify: Specify, store: TokenStore, tmp_path: Path, capsys: Any
) -> None:
    config = tmp_path / "config.json"
    config.write_text(specify(tmp_path / "data").model_dump_json())
    assert main(["tokens", str(config)]) == 0
    assert content(tmp_path / "data" / "tokens") == content(store.folder)
    for number in range(2):
        assert main(["dump", str(config), "--slice", f"{number}/2", "--out", str(tmp_path / f"part{number}")]) == 0
    parts = [argument for number in range(2) for argument in ("--source", str(tmp_path / f"part{number}"))]
    assert main(["merge", str(config), *parts]) == 0
    sliced = content(tmp_path / "data" / "activations")
    shutil.rmtree(tmp_path / "data" / "activations")
    capsys.readouterr()
    assert main(["dump", str(config), "--json"]) == 0
    assert content(tmp_path / "data" / "activations") == sliced
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"]["train"] > 100
    last = json.loads(err.splitlines()[-1])
    assert last["done"] == last["total"] == sum(json.loads(out)["rows"].values())
    assert last["eta_s"] == 0


def test_an_error_leaves_with_the_code_of_its_class(specify: Specify, tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "config.json"
    spec = specify(tmp_path / "data")
    config.write_text(spec.model_dump_json().replace('"seed"', '"sead"'))
    assert main(["tokens", str(config)]) == 2
    assert "did you mean seed?" in capsys.readouterr().err
    config.write_text(spec.model_dump_json())
    assert main(["dump", str(config)]) == 3
    assert "ArtifactMissing" in capsys.readouterr().err
    assert main(["dump", str(config), "--slice", "2/2"]) == 2
    assert main(["merge", str(config), "--json"]) == 3
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"] == "ArtifactMissing"
    (tmp_path / "stories.jsonl").write_text('{"text": "Ana sang"}')
    wrong = spec.model_dump(mode="json") | {"corpus": {"source": "dataset", "path": str(tmp_path)}}
    config.write_text(json.dumps(wrong))
    assert main(["tokens", str(config)]) in {2, 5}
    with pytest.raises(SystemExit, match="2"):
        main(["toknes", str(config)])


def test_every_class_of_error_has_a_code() -> None:
    def classes(root: type[WonderError]) -> list[type[WonderError]]:
        return [root, *(found for child in root.__subclasses__() for found in classes(child))]

    for found in classes(errors.WonderError):
        code = next(code for kind, code in EXIT if issubclass(found, kind))
        assert 1 <= code <= 8
    assert next(code for kind, code in EXIT if issubclass(errors.StoreNotUsable, kind)) == 4


def test_progress_tells_rate_and_time_to_go_without_what_was_there_before() -> None:
    out = io.StringIO()
    ticker = Ticker("dump", "rows", interval_s=0, out=out)
    ticker(500, 1000)
    ticker(600, 1000)
    ticker(1000, 1000)
    lines = out.getvalue().splitlines()
    assert lines[1].startswith("dump 600 of 1,000 rows (60 %) · ")
    assert "to go" in lines[1]
    assert "to go" not in lines[2]
    assert [duration(seconds) for seconds in (4, 75, 7300)] == ["4 s", "1 min 15 s", "2 h 1 min"]


def test_what_supervisors_read_needs_no_array_library() -> None:
    arrays = {"torch", "numpy", "transformers", "boto3"}
    for names, unwanted in ((LIGHT, arrays | {"temporalio"}), (["__main__"], arrays)):
        modules = ", ".join(f"lens_training.{name}" for name in names)
        code = f"import {modules}, sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert not unwanted & {name.split(".")[0] for name in done.stdout.split()}
