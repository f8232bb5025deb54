import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load

from tests.unit.engine.conftest import FAMILIES, build, byte_tokenizer
from wonder.anatomy import examine
from wonder.engine import Request
from wonder.engine.raw import RawText, capture
from wonder.engine.raw_data import MANIFEST_FILE, RawCapture, RawDataset
from wonder.engine.raw_points import Reader, find_points
from wonder.errors import ArtifactCorrupt, ArtifactMissing, PromptTooLong, SettingNotSupported
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.store import DirectoryStore

TEXTS = [[5 + (7 * i + 3 * j) % 300 for j in range(3 + (5 * i) % 9)] for i in range(11)]
SMALL = {"sites": ["resid_post"], "layers": [1], "rows_per_shard": 12}
STREAMS = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]


def states(folder: Any, *ref: Any) -> dict[str, Any]:
    """All shards put together."""
    shards = list(RawDataset.open(folder, *ref))
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


@pytest.mark.parametrize("batching", ["equal", "padded"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_states_equal_those_the_model_itself_gives_out(family: str, batching: str, tmp_path: Path) -> None:
    model = build(family)
    settings = RawCapture(sites=["resid_pre", "resid_post"], batching=batching, rows_per_shard=30)
    done = capture(model, TEXTS, settings, tmp_path)
    found = states(tmp_path)
    assert len(RawDataset.open(tmp_path)) == sum(map(len, TEXTS))
    assert (done.written, done.kept) == (len(done.manifest.shards), 0)
    norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
    for number, ids in enumerate(TEXTS):
        rows = found["text"] == number
        assert found["token"][rows].tolist() == ids
        assert found["position"][rows].tolist() == list(range(len(ids)))
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            last = norm(found["resid_post.3"][rows])
        for layer in range(4):
            torch.testing.assert_close(found[f"resid_pre.{layer}"][rows], hidden[layer][0], atol=1e-5, rtol=1e-5)
            if layer < 3:
                torch.testing.assert_close(
                    found[f"resid_post.{layer}"][rows], hidden[layer + 1][0], atol=1e-5, rtol=1e-5
                )
        torch.testing.assert_close(last, hidden[-1][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe", "mixtral", "gpt_oss"])
def test_the_parts_of_a_block_add_up(family: str, tmp_path: Path) -> None:
    capture(build(family), TEXTS[:4], RawCapture(sites=STREAMS), tmp_path)
    found = states(tmp_path)
    for layer in range(4):
        pre, mid, post, attention, mlp = (found[f"{site}.{layer}"] for site in STREAMS)
        torch.testing.assert_close(pre + attention, mid, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(mid + mlp, post, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_gives_its_points_or_says_why_not(family: str) -> None:
    model = build(family)
    anatomy = examine(model)
    layers = range(anatomy.n_layers)
    points = find_points(model, anatomy, layers, ["resid_pre", "resid_post", "attn_out", "mlp_out"], model.device)
    assert len(points) == 4 * anatomy.n_layers
    if family == "falcon":
        with pytest.raises(SettingNotSupported, match="attention and MLP run side by side"):
            find_points(model, anatomy, layers, ["resid_mid"], model.device)
    else:
        assert len(find_points(model, anatomy, layers, ["resid_mid"], model.device)) == anatomy.n_layers


def test_where_a_norm_follows_attention_the_middle_is_after_it(tmp_path: Path) -> None:
    model = build("gemma2")
    capture(model, TEXTS[:3], RawCapture(sites=STREAMS, layers=[2]), tmp_path)
    found = states(tmp_path)
    block = model.model.layers[2]
    with torch.no_grad():
        middle = found["resid_pre.2"] + block.post_attention_layernorm(found["attn_out.2"])
        after = middle + block.post_feedforward_layernorm(found["mlp_out.2"])
    torch.testing.assert_close(found["resid_mid.2"], middle, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["resid_post.2"], after, atol=1e-5, rtol=1e-5)


def test_reading_changes_nothing_and_leaves_no_hook() -> None:
    model = build("llama")
    ids = torch.tensor([TEXTS[2]])
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with torch.inference_mode():
        plain = model(ids).logits
        reader = Reader(find_points(model, examine(model), range(4), STREAMS, model.device))  # type: ignore[arg-type]
        with reader.on(), reader.rows(torch.tensor([0, 2])) as kept:
            read = model(ids).logits
    assert torch.equal(plain, read)
    assert len(kept) == 4 * len(STREAMS)
    assert all(found.shape == (2, 32) for found in kept.values())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks


def test_generated_positions_are_those_of_the_trace(make_engine: Any, store: Any, tmp_path: Path) -> None:
    engine = make_engine("llama", store=store)
    options = ThoughtCapture(capture_hidden_states=[1, 3])
    message = engine.generate_one(Request("hello", sampling=Sampling(max_new_tokens=6), capture=options))
    reference = load(store.get(message.thought_trace.artifacts[0]))
    prompt = engine.tokenizer("hello")["input_ids"]
    answer = engine.model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)[0, len(prompt) :].tolist()
    assert len(answer) == len(message.thought_trace.tokens)
    settings = RawCapture(layers=[1, 3], positions="generated")
    capture(engine, [RawText("hello", answer)], settings, tmp_path / "a")
    found = states(tmp_path / "a")
    assert found["position"].tolist() == list(range(len(prompt) - 1, len(prompt) + len(answer) - 1))
    for at, layer in enumerate([1, 3]):
        mean = found[f"resid_post.{layer}"].mean(0)
        torch.testing.assert_close(mean, reference["hidden.mean_generated"][at], atol=1e-5, rtol=1e-5)
    capture(engine, [RawText("hello", answer)], RawCapture(layers=[3], positions="prompt"), tmp_path / "b")
    prompt_mean = states(tmp_path / "b")["resid_post.3"].mean(0)
    torch.testing.assert_close(prompt_mean, reference["hidden.mean_prompt"][1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("positions", "want"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("prompt", [0, 1, 2]),
        ("generated", [2, 3]),
        ("last", [4]),
        ([-1, 0, 1, -5], [0, 1, 4]),
    ],
)
def test_positions(positions: Any, want: list[int], tmp_path: Path) -> None:
    text = RawText([5, 6, 7], [8, 9])
    capture(build("llama"), [text], RawCapture(layers=[0], positions=positions), tmp_path)
    found = states(tmp_path)
    assert found["position"].tolist() == want
    assert found["token"].tolist() == [5 + at for at in want]


SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.unit.engine.conftest import build
from tests.unit.engine.test_raw import SMALL, TEXTS
from wonder.engine.raw import capture
from wonder.engine.raw_data import RawCapture

def texts():
    for number, text in enumerate(TEXTS):
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield text

capture(build("llama"), texts(), RawCapture(**SMALL), Path(sys.argv[1]))
"""


def test_a_killed_capture_goes_on_where_it_was(tmp_path: Path, root: Path) -> None:
    there = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(there)], cwd=root, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(SettingNotSupported, match="not complete"):
        RawDataset.open(there)
    had = RawDataset.open(there, partial=True).manifest.shards
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file() and len(path.name) == 64}
    assert 2 <= len(had) == len(before)
    again = capture(build("llama"), TEXTS, RawCapture(**SMALL), there)
    whole = capture(build("llama"), TEXTS, RawCapture(**SMALL), tmp_path / "whole")
    assert (again.kept, again.written) == (len(had), whole.written - len(had))
    assert again.written > 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [shard.ref.sha256 for shard in again.manifest.shards] == [
        shard.ref.sha256 for shard in whole.manifest.shards
    ]
    assert max(shard.rows for shard in again.manifest.shards) <= SMALL["rows_per_shard"]


def test_a_capture_into_a_store_goes_on_from_the_manifest_its_caller_kept(store: DirectoryStore) -> None:
    model, kept = build("llama"), []

    def stop(manifest: Any) -> None:
        kept.append(manifest)
        if len(kept) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(model, TEXTS, RawCapture(**SMALL), store, on_shard=stop)
    done = capture(model, TEXTS, RawCapture(**SMALL), store, resume=kept[-1])
    assert done.kept == 3
    assert states(store, done.ref)["text"].tolist() == [i for i, text in enumerate(TEXTS) for _ in text]


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_changed_shard_is_refused_and_captured_anew(damage: bytes | None, tmp_path: Path) -> None:
    model = build("llama")
    done = capture(model, TEXTS, RawCapture(**SMALL), tmp_path)
    digest = done.manifest.shards[1].ref.sha256
    path = tmp_path / digest[:2] / digest
    data = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage and data[:-1] + damage)
    dataset = RawDataset.open(tmp_path)
    dataset.shard(0)
    with pytest.raises(ArtifactMissing if damage is None else ArtifactCorrupt, match=digest):
        list(dataset)
    again = capture(model, TEXTS, RawCapture(**SMALL), tmp_path)
    assert (again.written, again.kept) == (1, len(done.manifest.shards) - 1)
    assert path.read_bytes() == data


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    capture(build("llama"), TEXTS, RawCapture(**SMALL), tmp_path)
    path = tmp_path / MANIFEST_FILE
    path.write_text(path.read_text().replace('"first_text": 0', '"first_text": 1'))
    with pytest.raises(ArtifactCorrupt, match="was changed"):
        RawDataset.open(tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactCorrupt, match="is not the manifest"):
        RawDataset.open(tmp_path)
    with pytest.raises(ArtifactMissing, match="has no manifest"):
        RawDataset.open(tmp_path / "nowhere")


def test_a_shard_that_is_not_what_the_manifest_says_is_refused(store: DirectoryStore) -> None:
    done = capture(build("llama"), TEXTS, RawCapture(**SMALL), store)
    shards = list(done.manifest.shards)
    for ref in (store.put(b"no safetensors"), store.put(b"{}"), shards[1].ref):
        wrong = shards[0].model_copy(update={"ref": ref, "rows": 1})
        with pytest.raises(ArtifactCorrupt, match="shard 0"):
            RawDataset(store, done.manifest.model_copy(update={"shards": [wrong]})).shard(0)


def test_a_folder_that_was_moved_is_read_where_it_is(tmp_path: Path) -> None:
    capture(build("llama"), TEXTS, RawCapture(**SMALL), tmp_path / "here")
    before = states(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    after = states(tmp_path / "there")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_store_that_was_copied_is_read_where_it_is(tmp_path: Path) -> None:
    done = capture(build("llama"), TEXTS, RawCapture(**SMALL), DirectoryStore(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert len(list(RawDataset.open(DirectoryStore(tmp_path / "there"), done.ref))) == done.written


def test_another_capture_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    capture(build("llama"), TEXTS, RawCapture(**SMALL), tmp_path)
    kept = (tmp_path / MANIFEST_FILE).read_bytes()
    for seed, texts, change, said in [
        (1, TEXTS, {}, "model fingerprint"),
        (0, TEXTS, {"layers": [2]}, "hook points"),
        (0, TEXTS, {"dtype": "bfloat16"}, "dtype float32, now bfloat16"),
        (0, TEXTS, {"positions": "last"}, "positions all, now last"),
        (0, TEXTS[::-1], {}, "of other texts"),
        (0, TEXTS[:4], {}, "these texts give 3"),
        (0, [], {}, "shards, these texts give 0"),
    ]:
        with pytest.raises(SettingNotSupported, match=said):
            capture(build("llama", seed), texts, RawCapture(**{**SMALL, **change}), tmp_path)
    assert (tmp_path / MANIFEST_FILE).read_bytes() == kept


def test_another_batch_size_is_the_same_capture(tmp_path: Path) -> None:
    done = capture(build("llama"), TEXTS, RawCapture(**SMALL), tmp_path)
    again = capture(build("llama"), TEXTS, RawCapture(**SMALL, max_batch=1, batching="padded"), tmp_path)
    assert (again.written, again.kept) == (0, done.written)


def test_states_are_stored_in_the_type_that_is_asked_for(tmp_path: Path) -> None:
    model = build("llama")
    capture(model, TEXTS[:3], RawCapture(layers=[1]), tmp_path / "model")
    capture(model, TEXTS[:3], RawCapture(layers=[1], dtype="bfloat16"), tmp_path / "bfloat16")
    whole, short = states(tmp_path / "model")["resid_post.1"], states(tmp_path / "bfloat16")["resid_post.1"]
    assert torch.equal(short, whole.bfloat16())
    model.model.embed_tokens.weight.data *= 1e6
    with pytest.raises(SettingNotSupported, match=r"too large for torch\.float16"):
        capture(model, TEXTS[:3], RawCapture(layers=[1], dtype="float16"), tmp_path / "float16")


def test_a_model_that_keeps_a_running_state_is_never_padded(tmp_path: Path) -> None:
    config = hf.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    texts = [[5, 6, 7], [8, 9, 10, 11], [12, 13, 14]]
    with pytest.raises(SettingNotSupported, match="batching='equal'"):
        capture(model, texts, RawCapture(batching="padded"), tmp_path)
    capture(model, texts, RawCapture(), tmp_path)
    with torch.no_grad():
        hidden = model(torch.tensor([texts[2]]), output_hidden_states=True).hidden_states
    found = states(tmp_path)
    torch.testing.assert_close(found["resid_post.0"][found["text"] == 2], hidden[0][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("texts", "settings", "error", "said"),
    [
        ([[5]], {"layers": [9]}, SettingNotSupported, "layers 0 to 3"),
        ([[]], {}, SettingNotSupported, "text 0 has no tokens"),
        ([[5], [5, 999]], {}, SettingNotSupported, "text 1 has token 999"),
        ([[5], [5] * 2000], {}, PromptTooLong, "text 1 has 2000 tokens"),
        ([[5], [5] * 20], {"rows_per_shard": 8}, SettingNotSupported, "text 1 gives 20 rows"),
        ([[5]], {"positions": [1]}, SettingNotSupported, "no position 1"),
        ([[5]], {"positions": "generated"}, SettingNotSupported, "text 0 has no answer"),
        (["words"], {}, SettingNotSupported, "give the tokenizer"),
    ],
)
def test_what_cannot_be_captured_is_a_sentence(
    texts: Any, settings: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        capture(build("llama"), texts, RawCapture(**settings), tmp_path)


def test_words_are_tokenized_as_the_engine_does(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    texts: Iterator[Any] = iter(["ab", "<s>ab", RawText("ab", "c")])
    capture(build("llama"), texts, RawCapture(layers=[0]), tmp_path, tokenizer=tokenizer)
    found = states(tmp_path)
    ids = [found["token"][found["text"] == number].tolist() for number in range(3)]
    assert ids[0] == ids[1] == tokenizer("ab")["input_ids"] == ids[2][:3]
    assert len(ids[2]) == 4


def test_the_manifest_says_what_the_numbers_are(tmp_path: Path) -> None:
    capture(build("llama"), TEXTS, RawCapture(layers=[3, 1]), tmp_path)
    said = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert said["points"] == ["resid_post.1", "resid_post.3"]
    assert said["complete"]
    assert (said["model_dtype"], said["dtype"], said["d_model"]) == ("float32", "float32", 32)
    assert "before any final norm" in said["layer_convention"]


def test_the_snippet_of_the_documentation_runs_as_it_stands(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (root / "docs/artifacts.md").read_text(), re.MULTILINE | re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "artifacts.md", "exec"), {})
    assert "torch.Size" in capsys.readouterr().out
