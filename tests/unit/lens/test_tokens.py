"""Texts become token shards: exactly, again after a stop, and never half."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_training.corpus import Corpus, Cursor
from lens_training.spec import CorpusSpec
from lens_training.stories.target import Words
from lens_training.stories.world import stories
from lens_training.tokens import TokenStore, tokenize
from tests.unit.lens.conftest import Specify, content
from wonder.errors import ArtifactCorrupt, ArtifactMissing, ExtraMissing, SpecError
from wonder.lens.tokenizer import tokenizer_digest


class StopHereError(Exception):
    pass


def stop(after: int) -> Any:
    calls = iter(range(after))

    def progress(done: int, total: int) -> None:
        if next(calls, None) is None:
            raise StopHereError

    return progress


def test_every_document_is_there_as_the_tokenizer_reads_it(store: TokenStore) -> None:
    words = Words()
    found = [store.document(number).tolist() for number in range(len(store))]
    assert found == [words.ids(story) for story in stories(120, 1)]
    assert len(store.manifest.shards) > 2
    assert store.manifest.dtype == "uint16"
    assert store.manifest.tokens == sum(map(len, found))


def test_contexts_are_read_side_by_side_across_shards(store: TokenStore) -> None:
    numbers = [0, len(store) - 1, 57]
    starts = [sum(len(store.document(before)) for before in range(number)) for number in numbers]
    last = np.array([5, 9, 3])
    found = store.gather(np.array(starts), last, 12)
    for row, number in enumerate(numbers):
        want = store.document(number)[: last[row] + 1].tolist()
        assert found[row].tolist() == want + [want[-1]] * (12 - len(want))


def test_a_stopped_run_goes_on_and_gives_the_bytes_of_an_undisturbed_one(
    store: TokenStore, specify: Specify, tokenizer: Any, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    with pytest.raises(StopHereError):
        tokenize(spec.corpus, tokenizer, spec.tokens, stop(1))
    with pytest.raises(ArtifactMissing, match=r"has no manifest.json"):
        TokenStore(spec.tokens)
    first = (spec.tokens / "tok-00000.bin").stat().st_mtime_ns
    tokenize(spec.corpus, tokenizer, spec.tokens)
    assert (spec.tokens / "tok-00000.bin").stat().st_mtime_ns == first
    assert content(spec.tokens) == content(store.folder)


def test_a_finished_run_is_not_done_again_but_a_damaged_one_is(
    store: TokenStore, specify: Specify, tokenizer: Any, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    shutil.copytree(store.folder, spec.tokens)
    before = {path: path.stat().st_mtime_ns for path in spec.tokens.iterdir()}
    tokenize(spec.corpus, tokenizer, spec.tokens)
    assert {path: path.stat().st_mtime_ns for path in spec.tokens.iterdir()} == before
    (spec.tokens / "tok-00001.bin").write_bytes(b"")
    tokenize(spec.corpus, tokenizer, spec.tokens)
    assert content(spec.tokens) == content(store.folder)


@pytest.mark.parametrize("name", ["tok-00001.bin", "docs-00000.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_what_was_cut_or_changed_is_refused(store: TokenStore, tmp_path: Path, name: str, harm: str) -> None:
    shutil.copytree(store.folder, tmp_path / "tokens")
    path = tmp_path / "tokens" / name
    data = bytearray(path.read_bytes())
    at = data.index(b'"tokens": ') + 10 if name == "manifest.json" else len(data) // 2
    data[at] ^= 1
    path.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    with pytest.raises(ArtifactCorrupt):
        TokenStore(tmp_path / "tokens")


def test_a_folder_of_another_corpus_is_left_alone(store: TokenStore, specify: Specify, tokenizer: Any) -> None:
    spec = specify(store.folder.parent, {"first_token": False})
    with pytest.raises(SpecError, match="holds tokens of another corpus specification"):
        tokenize(spec.corpus, tokenizer, store.folder)


def test_a_large_vocabulary_takes_wide_numbers_and_other_rules_another_digest(
    tokenizer: Any, place: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    wide = AutoTokenizer.from_pretrained(place / "model")
    wide.add_tokens([f"<extra{at}>" for at in range(70_000)])
    assert tokenizer_digest(wide) != tokenizer_digest(tokenizer)
    (tmp_path / "a.txt").write_text("Ana went to <extra69999>")
    spec = CorpusSpec(source="text", path=str(tmp_path))
    manifest = tokenize(spec, wide, tmp_path / "tokens")
    assert manifest.dtype == "uint32"
    assert TokenStore(tmp_path / "tokens").document(0)[-1] == len(wide) - 1 > 65_536


def test_the_digest_of_a_tokenizer_does_not_depend_on_what_it_was_used_for(tokenizer: Any) -> None:
    before = tokenizer_digest(tokenizer)
    tokenizer(["a", "a b"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(tokenizer) == before


def test_text_files_are_documents_whole_or_by_line(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Ana sang .\n\nBen sang .\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("Leo ran")
    (tmp_path / "empty.txt").write_text("")
    whole = tokenize(CorpusSpec(source="text", path=str(tmp_path)), tokenizer, tmp_path / "whole")
    lines = CorpusSpec(source="text", path=str(tmp_path), document="line")
    assert (whole.documents, whole.empty) == (2, 1)
    assert tokenize(lines, tokenizer, tmp_path / "lines").documents == 3
    few = lines.model_copy(update={"max_documents": 1})
    assert tokenize(few, tokenizer, tmp_path / "few").documents == 1


def test_reading_goes_on_at_any_cursor(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({"text": f"{name} {at} ä"}) + "\n" for at in range(3)))
    corpus = Corpus(CorpusSpec(source="jsonl", path=str(tmp_path)))
    found = list(corpus.documents(Cursor()))
    for at, document in enumerate(found):
        assert list(corpus.documents(document.after)) == found[at + 1 :]
    assert corpus.done(found[-1].after) == corpus.size


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"body": "x"}', "has no text in 'text'; it has body"),
        ("[1]", "it has a list"),
        ("{", "is not a line of JSON"),
        ('{"text": "' + "x" * 200 + '"}', "more than 100 bytes"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tokenizer: Any, tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Ana sang"}\n' + line + "\n")
    spec = CorpusSpec(source="jsonl", path=str(tmp_path), max_document_bytes=100)
    with pytest.raises(SpecError, match=r"byte 21") as raised:
        tokenize(spec, tokenizer, tmp_path / "tokens")
    assert sentence in str(raised.value)


def test_a_corpus_that_is_not_there_or_empty_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no folder with \*\.txt"):
        tokenize(CorpusSpec(source="text", path=str(tmp_path / "none")), tokenizer, tmp_path / "tokens")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SpecError, match="no document with a token"):
        tokenize(CorpusSpec(source="text", path=str(tmp_path)), tokenizer, tmp_path / "tokens")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="is not UTF-8"):
        tokenize(CorpusSpec(source="text", path=str(tmp_path)), tokenizer, tmp_path / "others")


def test_a_dataset_on_disk_gives_the_tokens_of_its_texts(
    store: TokenStore, specify: Specify, tokenizer: Any, tmp_path: Path
) -> None:
    import datasets

    table = datasets.table.InMemoryTable.from_pydict({"body": [" ".join(story.words) for story in stories(120, 1)]})
    rows = datasets.Dataset(table, fingerprint="stories")
    rows.save_to_disk(str(tmp_path / "rows"))
    spec = specify(tmp_path, {"source": "dataset", "path": str(tmp_path / "rows"), "field": "body"})
    with pytest.raises(StopHereError):
        tokenize(spec.corpus, tokenizer, spec.tokens, stop(1))
    tokenize(spec.corpus, tokenizer, spec.tokens)
    found = content(spec.tokens)
    assert {name: found[name] for name in found if name != "manifest.json"} == {
        name: data for name, data in content(store.folder).items() if name != "manifest.json"
    }
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(SpecError, match="holds train: name the folder"):
        Corpus(spec.corpus.model_copy(update={"path": str(tmp_path / "splits")}))


def test_a_dataset_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ExtraMissing, match=r"wonder-temporal\[data\]"):
        Corpus(CorpusSpec(source="dataset", path=str(tmp_path)))


def test_what_a_killed_process_left_is_swept_away(
    store: TokenStore, specify: Specify, tokenizer: Any, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    shutil.copytree(store.folder, spec.tokens)
    process = subprocess.Popen(["true"])
    process.wait()
    (spec.tokens / f".tok-00009.bin.{socket.gethostname()}.{process.pid}.part").write_bytes(b"half")
    alive = spec.tokens / f".tok-00008.bin.{socket.gethostname()}.{os.getpid()}.part"
    alive.write_bytes(b"being written")
    tokenize(spec.corpus, tokenizer, spec.tokens)
    alive.unlink()
    assert content(spec.tokens) == content(store.folder)
