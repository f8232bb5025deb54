"""How large a trace is when it travels: a long answer with everything captured, and an ordinary one."""

import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig

from benchmarks._results import Row, report
from wonder.compression.bundle import save_compressor
from wonder.compression.fit import Covariance, fit
from wonder.compression.manifest import CompressorManifest
from wonder.embedded import embedded_path
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.names import EMBEDDED_MODEL
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.manifest import HookPoint
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage
from wonder.trace.size import encoded_bytes
from wonder.trace.store import DirectoryStore

TOKENS = 512
LAYERS = 32
EXPERTS = 16
WIDTH = 64
FULL = ThoughtCapture(
    capture_hidden_states=True,
    capture_attention=True,
    capture_expert_routing=True,
    compute_attention_entropy=True,
    compress_state=True,
    attention_layers="all",
    boosted_probability=True,
    top_alternatives=5,
)
BINNED: dict[str, Any] = {"top_alternatives": 3, "store_in": "both", "capture_hidden_states": False}


def deep_engine(folder: Path) -> TraceEngine:
    """A random mixture of experts that is as deep as an 8 B model, and narrow, with a compressor of its states."""
    path = embedded_path(EMBEDDED_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(path)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        moe_intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        max_position_embeddings=1024,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    tokenizer.eos_token = None  # the answer must not end early
    compressors = folder / "compressors"
    _compressor(compressors / "pca", model_fingerprint(model))
    return TraceEngine(model, tokenizer, store=DirectoryStore(folder), compressors=compressors)


def long_answer(engine: TraceEngine, tokens: int, **capture: Any) -> AgentMessage:
    """So many tokens, with everything captured."""
    wanted = FULL.model_copy(update=capture)
    sampling = Sampling(max_new_tokens=tokens, temperature=1.0, seed=1)
    return engine.generate_one(Request(prompt="Ticket: the parcel is late.", sampling=sampling, capture=wanted))


def _compressor(folder: Path, fingerprint: str) -> None:
    """A basis of random states: a code is as long whatever it stands for."""
    covariance = Covariance(WIDTH)
    covariance.update(torch.randn(4 * WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))
    manifest = CompressorManifest(
        name="pca",
        method="pca",
        model="random",
        revision="",
        model_fingerprint=fingerprint,
        dtype="float32",
        hook_point=HookPoint(layer=LAYERS - 1, aggregation="mean_generated"),
        d_model=WIDTH,
        dims=WIDTH,
        probe_dims=0,
        probes=[],
        data_sha256="0" * 64,
        train_count=4 * WIDTH,
        held_out_count=1,
        metrics=[],
        created=date(2026, 1, 1),
    )
    save_compressor(folder, manifest, fit(covariance, torch.zeros(0, WIDTH), WIDTH))


def ordinary_answer(folder: Path) -> AgentMessage:
    """An answer of the embedded model, with every signal it gives."""
    engine = TraceEngine.load(device="cpu", store=DirectoryStore(folder))
    capture = FULL.model_copy(update={"run_concept_probes": engine.info.concepts})
    prompt = "Ticket: I was charged twice.\nTriage:"
    return engine.generate_one(Request(prompt=prompt, capture=capture, answer_format="json"))


def kilobytes(message: AgentMessage) -> float:
    """Encoded size of the trace."""
    assert message.thought_trace is not None
    return encoded_bytes(message.thought_trace) / 1024


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        engine, ordinary = deep_engine(Path(folder)), ordinary_answer(Path(folder))
        long = long_answer(engine, TOKENS)
        sizes = {
            detail: kilobytes(long_answer(engine, TOKENS // 2, detail=detail, **BINNED))
            for detail in ("full", "binned")
        }
    assert long.thought_trace is not None
    assert long.thought_trace.artifacts
    stored = sum(ref.bytes for ref in long.thought_trace.artifacts)
    rows = [
        Row(
            "512-token full trace encoded, KB",
            kilobytes(long),
            "KB",
            "<= 48",
            f"JSON bytes / 1024 of one trace: {TOKENS} tokens, {LAYERS} layers, {EXPERTS} experts, attention of all "
            "layers, 5 alternatives per token; what does not fit lies in the artifact.",
        ),
        Row(
            "binned trace, 32 layers x 256 tokens, KB",
            sizes["binned"],
            "KB",
            "<= 8",
            f"JSON bytes / 1024 of one trace with detail='binned' (16 time bins): {TOKENS // 2} tokens, {LAYERS} "
            f"layers, {EXPERTS} experts, attention of all layers, {WIDTH} numbers of compressed state, the reference"
            " to the artifact that holds the whole.",
        ),
        Row(
            "the same trace with detail='full', KB",
            sizes["full"],
            "KB",
            "",
            "The same answer, every list over tokens in full (3 alternatives per token).",
        ),
        Row("artifact of that trace, KB", stored / 1024, "KB", "", "Bytes stored beside it, hidden states included."),
        Row(
            "trace of an ordinary answer, KB",
            kilobytes(ordinary),
            "KB",
            "",
            "The embedded model's answer to one ticket with every signal read.",
        ),
    ]
    report("trace_size", rows, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
