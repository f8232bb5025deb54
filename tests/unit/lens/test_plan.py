"""What is planned is what happens: sizes, operations and memory of real models and real steps."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from benchmarks.lens_plan import AGAIN, MEMORY, WORK, cases, memory_ratio, work_ratio
from lens_training.__main__ import main
from lens_training.plan.estimate import RunPlan, estimate
from lens_training.plan.shape import read_shape, shape_of
from lens_training.plan.text import text_of
from lens_training.run_spec import RunSpec
from lens_training.spec import load, parse
from wonder.cli.__main__ import dispatch, parser
from wonder.errors import SpecError

EXAMPLES = Path(__file__).parents[3] / "examples" / "lens"
SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
}
CASES = {case.name: case for case in cases()}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True),
        Qwen2Config(**SMALL, tie_word_embeddings=True),
        Qwen3Config(**SMALL, head_dim=32),
        Gemma3TextConfig(**SMALL, head_dim=32),
        Olmo2Config(**SMALL),
        Qwen3MoeConfig(**SMALL, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16),
        GPT2Config(n_embd=64, n_layer=3, n_head=4, n_positions=50, vocab_size=300),
        GPTNeoXConfig(
            hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, vocab_size=300
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_a_configuration_gives_the_models_number_of_parameters(config: Any) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape_of(config.to_dict()).parameters == sum(value.numel() for value in model.parameters())


def test_published_shapes_have_the_published_size() -> None:
    sizes = {"meta-llama/Llama-2-7b-hf": 6_738_415_616, "meta-llama/Meta-Llama-3-8B": 8_030_261_248}
    for name, size in sizes.items():
        assert read_shape(name).parameters == size
    assert read_shape("Qwen/Qwen2.5-7B").parameters == 7_615_616_512
    with pytest.raises(SpecError, match="name a folder"):
        read_shape("nobody/has-this")


@pytest.mark.parametrize(
    ("name", "objective", "terms"),
    [
        ("Llama, a prompt of 12", "warm_start", "no term"),
        ("Qwen3, 5 blocks of 128", "ste_parallel", "LM"),
        ("GPT-2, 4 blocks of 128", "ste_recurrent", "anchor and entropy"),
        ("Llama, 4 blocks of 128", "grpo", "KL"),
        ("Llama, adapters", "grpo", "KL"),
    ],
)
def test_the_operations_of_a_step_are_those_that_were_planned(name: str, objective: Any, terms: str) -> None:
    assert work_ratio(CASES[name], objective, terms) == pytest.approx(1, abs=WORK)


@pytest.mark.parametrize(
    ("name", "objective", "terms", "tolerance"),
    [
        ("Llama, a prompt of 12", "warm_start", "no term", MEMORY),
        ("Qwen3, 5 blocks of 128", "ste_parallel", "KL", MEMORY),
        ("Llama, 4 blocks of 256", "ste_recurrent", "LM", MEMORY),
        ("Llama, 3,000 tokens", "grpo", "anchor and entropy", MEMORY),
        ("Llama, adapters on bfloat16", "grpo", "KL", MEMORY),
        ("Llama, blocks run again", "grpo", "no term", AGAIN),
    ],
)
def test_the_memory_of_a_step_is_what_was_planned(name: str, objective: Any, terms: str, tolerance: float) -> None:
    assert memory_ratio(CASES[name], objective, terms) == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize(("name", "kind"), [("8xh100", "h100"), ("one_gpu", "h100"), ("cpu", "cpu")])
def test_the_committed_configurations_parse_and_fit(name: str, kind: Any) -> None:
    plan = estimate(load(RunSpec, EXAMPLES / f"{name}.json"))
    assert plan.is_card == (kind != "cpu")
    assert not plan.problem
    assert all(0 < phase.mfu < 1.01 and phase.bytes < plan.usable_bytes for phase in plan.phases)
    assert RunPlan.model_validate(plan.model_dump()) == plan
    said = text_of(plan)
    assert "fits: at most" in said
    assert max(map(len, said.splitlines())) < 220


def changed(**settings: Any) -> RunSpec:
    value = json.loads((EXAMPLES / "8xh100.json").read_text())
    for path, setting in settings.items():
        *parents, last = path.split("__")
        place = value
        for parent in parents:
            place = place[parent]
        place[last] = setting
    return parse(RunSpec, value)


def test_what_cannot_fit_is_refused_with_what_helps_and_what_helps_fits() -> None:
    whole = estimate(changed(run__accumulate=1))
    assert "GB too much in the gradient pass" in whole.problem
    assert "run.accumulate 4" in whole.problem
    assert not estimate(changed(run__accumulate=4)).problem
    full = estimate(changed(lens__adapters=None, run__accumulate=32))
    assert "lens.adapters" in full.problem
    assert "fsdp2" in full.problem
    assert not estimate(changed(lens__adapters=None, run__accumulate=32, parallel__kind="fsdp2")).problem


def test_a_longer_text_costs_more_of_everything() -> None:
    short, long = estimate(changed(lens__length=8)), estimate(changed(lens__length=32))
    for one, other in zip(short.phases, long.phases, strict=True):
        assert one.bytes < other.bytes
        assert one.flops_per_activation < other.flops_per_activation
        assert one.step_s < other.step_s


def test_the_command_prints_a_plan_and_tells_by_its_exit_code_whether_it_fits(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "run.json"
    path.write_text(changed(run__accumulate=2).model_dump_json())
    assert main(["plan", str(path)]) == 7
    assert "DOES NOT FIT" in capfd.readouterr().out
    assert main(["plan", str(path), "--device-kind", "h200", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["fits"] is True
    said = asyncio.run(dispatch(parser().parse_args(["lens", "plan", str(EXAMPLES / "cpu.json")])))
    assert said == 0
    assert "support-desk-toy" in capfd.readouterr().out


def test_planning_loads_no_array_library() -> None:
    code = (
        "import sys; from lens_training.__main__ import main; "
        f"code = main(['plan', {str(EXAMPLES / '8xh100.json')!r}]); "
        "sys.exit(code or int('torch' in sys.modules or 'numpy' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
