"""Activations on disk are the model's, whoever wrote them, however often they were interrupted."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lens_training.activations import merge, tensor
from lens_training.dump import check_tokenizer, dump, load_target
from lens_training.models.target import TargetModel
from lens_training.moments import Moments, NormCounts, percentiles
from lens_training.positions import positions_of, split_of
from lens_training.spec import SPLITS, DumpSpec, TargetSpec
from lens_training.tokens import TokenStore, tokenize
from tests.unit.engine.conftest import FAMILIES
from tests.unit.lens.conftest import LAYER, Specify, content
from wonder.errors import ArtifactCorrupt, ArtifactMissing, SpecError, StoreNotUsable


@pytest.fixture(scope="session")
def whole(place: Path, store: TokenStore, target: TargetModel, specify: Specify) -> Path:
    """A finished dump that no test changes."""
    spec = specify(place)
    dump(store, target, spec.dump, spec.target, spec.activations)
    merge(spec.activations)
    return spec.activations


def shards(folder: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(path) for path in sorted(folder.glob("act-*.safetensors"))]


@pytest.mark.parametrize("count", [2, 3])
def test_slices_merge_to_the_bytes_of_one_run(
    whole: Path, store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path, count: int
) -> None:
    spec = specify(tmp_path)
    for number in reversed(range(count)):
        dump(store, target, spec.dump, spec.target, spec.activations, (number, count))
    merge(spec.activations)
    assert content(spec.activations) == content(whole)
    assert len(shards(whole)) > 4


def test_slices_of_folders_of_their_own_merge_as_well(
    whole: Path, store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    for number in (0, 1):
        dump(store, target, spec.dump, spec.target, tmp_path / str(number), (number, 2))
    with pytest.raises(ArtifactMissing, match=r"shards are not there yet \(first: 1\)"):
        merge(tmp_path / "0")
    merge(spec.activations, [tmp_path / "0", tmp_path / "1"])
    assert content(spec.activations) == content(whole)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("llama", torch.float32),
        ("llama", torch.bfloat16),
        ("gpt2", torch.float32),
        ("gemma2", torch.float32),
        ("mixtral", torch.float32),
    ],
)
def test_what_is_stored_is_a_fresh_forward_rounded_to_bfloat16(
    store: TokenStore, specify: Specify, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    import transformers

    torch.manual_seed(3)
    model: Any = transformers.AutoModelForCausalLM.from_config(FAMILIES[name]())
    target = TargetModel(model.to(dtype).eval(), LAYER)
    # One document a pass, so that the fresh forward below has the same shapes; see the next test for shared passes.
    spec = specify(tmp_path, tokens_per_pass=1)
    dump(store, target, spec.dump, spec.target, tmp_path / "out", (0, 4))
    (found, *_) = shards(tmp_path / "out")
    tokens = np.concatenate([store.document(number) for number in range(len(store))])
    for document in found["doc"].unique()[:6]:
        rows = (found["doc"] == document).nonzero()[:, 0]
        start, last = int(found["start"][rows[0]]), int(found["pos"][rows].max())
        context = torch.from_numpy(tokens[start : start + last + 1])[None]
        with torch.no_grad():
            seen = model(input_ids=context, output_hidden_states=True, use_cache=False).hidden_states
        at = found["pos"][rows].long()
        assert torch.equal(found["A"][rows], seen[LAYER + 1][0, at].bfloat16())
        assert torch.equal(found["H"][rows], seen[-1][0, at].bfloat16())


def test_documents_that_share_a_pass_get_the_same_values(whole: Path, target: TargetModel, store: TokenStore) -> None:
    tokens = np.concatenate([store.document(number) for number in range(len(store))])
    for found in shards(whole)[:2]:
        for row in range(0, len(found["pos"]), 25):
            start, pos = int(found["start"][row]), found["pos"][row : row + 1].long()
            context = torch.from_numpy(tokens[start : start + int(pos) + 1])[None]
            seen = target.capture(context, pos)
            # Sums of other shapes round differently, so a value at a border of bfloat16 may fall on its other side.
            torch.testing.assert_close(found["A"][row].float(), seen.activation_BD[0], rtol=2**-8, atol=1e-6)
            torch.testing.assert_close(found["H"][row].float(), seen.final_BD[0], rtol=2**-8, atol=1e-6)


def test_blocks_above_the_layer_run_only_for_final_states(
    store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path, whole: Path
) -> None:
    ran: list[int] = []
    handle = target.anatomy.blocks[LAYER + 1].register_forward_hook(lambda *_: ran.append(1))
    spec = specify(tmp_path, final=False)
    try:
        dump(store, target, spec.dump, spec.target, spec.activations)
    finally:
        handle.remove()
    assert not ran
    for found, with_final in zip(shards(spec.activations), shards(whole), strict=True):
        assert "H" not in found
        assert torch.equal(found["A"], with_final["A"])


def test_rows_stand_by_split_and_the_statistics_are_of_train_alone(whole: Path) -> None:
    manifest = json.loads((whole / "manifest.json").read_text())
    train = []
    for found, rows in zip(shards(whole), manifest["shard_rows"], strict=True):
        assert sum(rows.values()) == len(found["pos"]) <= 200
        train.append(found["A"][: rows["train"]].double())
    all_rows = torch.cat(train)
    mean = tensor(whole / "statistics.safetensors", "mean")
    torch.testing.assert_close(mean, all_rows.mean(0), rtol=1e-12, atol=1e-12)
    variance = float((all_rows - all_rows.mean(0)).square().sum(1).mean())
    assert manifest["variance"] == pytest.approx(variance, rel=1e-12)
    assert manifest["norm_percentiles"]["p50"] == pytest.approx(float(all_rows.norm(dim=1).median()), rel=0.02)
    assert manifest["rows"]["train"] == len(all_rows)
    assert min(manifest["documents"][name] for name in SPLITS) > 0


def test_moments_of_pieces_merge_to_those_of_the_whole() -> None:
    rows = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1)) * 3 + 1000
    pieces = Moments.none(8)
    counts = NormCounts()
    for piece in torch.split(rows, 137):
        pieces = pieces.merged(Moments.of(piece))
        counts.add(piece)
    torch.testing.assert_close(pieces.variance_D, rows.double().var(0, correction=0), rtol=1e-9, atol=0)
    assert percentiles(counts.counts)["p100"] == pytest.approx(float(rows.norm(dim=1).max()), rel=0.02)


def test_equal_documents_are_in_one_split_and_positions_depend_on_the_document_alone() -> None:
    spec = DumpSpec(minimum_position=4, context_length=32, positions_per_document=6, window="random")
    drawn = np.bincount([split_of(content, spec) for content in range(4000)], minlength=3) / 4000
    assert drawn == pytest.approx([0.9, 0.05, 0.05], abs=0.015)
    seen = set()
    for document in range(300):
        start, pos = positions_of(document, 50, spec)
        assert 0 <= start <= 50 - 32
        assert 4 <= pos.min() <= pos.max() < 32
        assert len(set(pos.tolist())) == 6
        seen |= set(pos.tolist())
    assert seen == set(range(4, 32))
    assert positions_of(3, 6, spec)[1].tolist() == [4, 5]


def test_a_killed_dump_goes_on_to_the_bytes_of_an_undisturbed_one(
    store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path
) -> None:
    small = {"rows_per_shard": 10}
    spec = specify(tmp_path, **small)
    shutil.copytree(store.folder, spec.tokens)
    (tmp_path / "config.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "lens_training", "dump", str(tmp_path / "config.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while not (spec.activations / "act-00007.json").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (spec.activations / "manifest.json").exists()
    written = (spec.activations / "act-00003.safetensors").stat().st_mtime_ns
    dump(store, target, spec.dump, spec.target, spec.activations)
    merge(spec.activations)
    assert (spec.activations / "act-00003.safetensors").stat().st_mtime_ns == written
    calm = specify(tmp_path / "calm", **small)
    dump(store, target, calm.dump, calm.target, calm.activations)
    merge(calm.activations)
    assert content(spec.activations) == content(calm.activations)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stages_that_are_killed_again_and_again_give_the_bytes_of_undisturbed_ones(
    store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path
) -> None:
    rng = random.Random(7)
    corpus = {"tokens_per_shard": 50}
    spec = specify(tmp_path, corpus, rows_per_shard=10)
    config = tmp_path / "config.json"
    config.write_text(spec.model_dump_json())
    kills = 0
    for stage, folder, size in (("tokens", spec.tokens, 30), ("dump", spec.activations, 30)):
        while True:
            before = len(list(folder.glob("*"))) if folder.exists() else 0
            process = subprocess.Popen(
                [sys.executable, "-m", "lens_training", stage, str(config)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            wanted = before + rng.randint(1, 4) * size
            while process.poll() is None and (not folder.exists() or len(list(folder.glob("*"))) < wanted):
                time.sleep(0.005)
            time.sleep(rng.random() * 0.01)
            process.kill()
            if process.wait() != -signal.SIGKILL:
                assert process.returncode == 0
                break
            kills += 1
    assert kills >= 5
    calm = specify(tmp_path / "calm", corpus, rows_per_shard=10)
    tokenize(calm.corpus, AutoTokenizer.from_pretrained(calm.tokenizer), calm.tokens)
    assert content(spec.tokens) == content(calm.tokens)
    calm_store = TokenStore(calm.tokens)
    dump(calm_store, target, calm.dump, calm.target, calm.activations)
    merge(calm.activations)
    assert content(spec.activations) == content(calm.activations)


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file can grow beyond this: the kernel refuses, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_publishes_nothing_half_and_the_run_goes_on_later(
    whole: Path, store: TokenStore, target: TargetModel, specify: Specify, tokenizer: Any, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    with disk_of(12_000), pytest.raises(StoreNotUsable, match="there is no room for it"):
        dump(store, target, spec.dump, spec.target, spec.activations)
    assert [path.name for path in spec.activations.iterdir()] == ["plan.json"]
    dump(store, target, spec.dump, spec.target, spec.activations)
    merge(spec.activations)
    assert content(spec.activations) == content(whole)
    with disk_of(2_000), pytest.raises(StoreNotUsable):
        tokenize(spec.corpus, tokenizer, spec.tokens)
    assert not list(spec.tokens.iterdir())


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_harmed_shard_is_not_merged_and_is_made_anew(
    whole: Path, store: TokenStore, target: TargetModel, specify: Specify, tmp_path: Path, harm: str
) -> None:
    spec = specify(tmp_path)
    shutil.copytree(whole, spec.activations)
    path = spec.activations / "act-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    with pytest.raises(ArtifactCorrupt, match="act-00002"):
        merge(spec.activations)
    dump(store, target, spec.dump, spec.target, spec.activations)
    assert content(spec.activations) == content(whole)


def test_work_that_cannot_be_is_refused_in_a_sentence(
    whole: Path, store: TokenStore, target: TargetModel, specify: Specify, place: Path, tmp_path: Path
) -> None:
    spec = specify(tmp_path)
    with pytest.raises(SpecError, match="holds another dump"):
        dump(store, target, spec.dump.model_copy(update={"seed": 5}), spec.target, whole)
    tiny = spec.dump.model_copy(update={"minimum_position": 90, "context_length": 128})
    with pytest.raises(SpecError, match="the corpus is too small for the split: of 120 documents"):
        dump(store, target, tiny, spec.target, tmp_path / "out")
    with pytest.raises(SpecError, match=r"slice 3/3"):
        dump(store, target, spec.dump, spec.target, tmp_path / "out", (3, 3))
    with pytest.raises(SpecError, match="use 0 to 1"):
        load_target(TargetSpec(model=str(place / "model"), layer=2))
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="no GPU is visible"):
            load_target(spec.target, "cuda")


def test_tokens_of_another_tokenizer_are_refused(store: TokenStore, target: TargetModel, place: Path) -> None:
    own, other = (AutoTokenizer.from_pretrained(place / "model") for _ in range(2))
    check_tokenizer(store, target, own)
    other.add_tokens(["<new>"])
    with pytest.raises(SpecError, match="made by another tokenizer"):
        check_tokenizer(store, target, other)
