"""The engine on a CUDA device: `make test-gpu`; fails where there is none."""

import pytest
import torch

from tests.unit.engine.conftest import build, byte_tokenizer
from wonder.actions.contracts import ThinkRequest
from wonder.embedded import world
from wonder.engine import TraceEngine
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage, ThoughtTrace

pytestmark = pytest.mark.gpu

EVERYTHING = ThoughtCapture(
    capture_attention=True, compute_attention_entropy=True, attention_layers="all", run_concept_probes=["legal_risk"]
)

SIGNALS = ThoughtCapture(
    capture_attention=True, compute_attention_entropy=True, attention_layers="all", capture_expert_routing=True
)


def requests(n: int, capture: ThoughtCapture = EVERYTHING, **sampling: float) -> list[ThinkRequest]:
    return [
        ThinkRequest(
            action="classify",
            model="support-desk",
            prompt=world.prompt(ticket.text),
            capture=capture,
            sampling=Sampling(**sampling),  # type: ignore[arg-type]
            answer_format="json",
        )
        for ticket in world.tickets(n, seed=5, split="held_out")
    ]


def traces(answers: list[AgentMessage | Exception]) -> list[ThoughtTrace]:
    found = [answer.thought_trace for answer in answers if isinstance(answer, AgentMessage)]
    assert len(found) == len(answers)
    return [trace for trace in found if trace is not None]


def test_float32_traces_on_the_gpu_are_those_of_the_cpu() -> None:
    asked = requests(16)
    there = traces(list(TraceEngine.load(device="cuda", dtype="float32").generate(asked)))
    here = traces(list(TraceEngine.load(device="cpu", dtype="float32").generate(asked)))
    for gpu, cpu in zip(there, here, strict=True):
        assert gpu.tokens == cpu.tokens
        assert gpu.overall_confidence == pytest.approx(cpu.overall_confidence, abs=1e-3)
        assert gpu.layer_norms == pytest.approx(cpu.layer_norms, rel=1e-3)
        assert gpu.attention_entropy == pytest.approx(cpu.attention_entropy, abs=1e-3)
        assert gpu.active_concepts["legal_risk"] == pytest.approx(cpu.active_concepts["legal_risk"], abs=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reading_changes_no_token(dtype: str) -> None:
    engine = TraceEngine.load(device="cuda", dtype=dtype)
    watched = traces(list(engine.generate(requests(8, max_new_tokens=32))))
    blind = engine.generate(requests(8, ThoughtCapture(enabled=False), max_new_tokens=32))
    assert [trace.tokens for trace in watched] == [trace.tokens for trace in traces(list(blind))]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3_moe", "llama4", "deepseek_v3", "gpt_oss"])
def test_ragged_requests_to_every_kind_of_model_are_read_as_on_the_cpu(family: str) -> None:
    found = {}
    for device in ("cuda", "cpu"):
        engine = TraceEngine(build(family).to(device), byte_tokenizer())
        assert "slots" not in engine.info.unsupported
        asked = [
            Request(prompt="ab" * length, sampling=Sampling(max_new_tokens=8), capture=SIGNALS)
            for length in (2, 21, 6, 40)
        ]
        found[device] = traces(list(engine.generate(asked)))
        engine.close()
    for gpu, cpu in zip(found["cuda"], found["cpu"], strict=True):
        assert gpu.tokens == cpu.tokens
        assert gpu.token_confidences == pytest.approx(cpu.token_confidences, abs=1e-3)
        assert gpu.layer_norms == pytest.approx(cpu.layer_norms, rel=1e-3)
        assert gpu.attention_entropy == pytest.approx(cpu.attention_entropy, abs=1e-3)
        assert gpu.expert_distribution.keys() == cpu.expert_distribution.keys()


def test_on_a_card_that_is_nearly_full_everyone_is_answered() -> None:
    engine = TraceEngine.load(device="cuda")
    free, _ = torch.cuda.mem_get_info()
    blocker = torch.empty(free - 2**30, dtype=torch.uint8, device="cuda")
    try:
        answers = engine.generate(requests(16, max_new_tokens=64))
    finally:
        del blocker
        torch.cuda.empty_cache()
    assert all(isinstance(answer, AgentMessage) for answer in answers)
