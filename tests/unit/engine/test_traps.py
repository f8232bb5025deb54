"""The traps of reading a model, and the test that falls into each: a trap whose test is renamed or lost is noticed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.engine.reference import read
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

TRAPS = {
    # What common code gets wrong
    "padding enters the mean of a prompt": "test_engine::"
    "test_pooled_prompt_states_are_the_same_with_and_without_padding",
    "only the first step is read": "test_engine::test_changing_only_generated_tokens_changes_the_trace",
    "tokens and entries do not match": "test_engine::test_an_answer_has_one_entry_per_token_and_per_layer",
    "hidden_states[-1] is after the final norm": "test_traps::test_the_last_layer_is_read_before_the_final_norm",
    "statistics of processed scores, not of logits": "test_traps::test_settings_of_the_draw_do_not_touch_the_numbers",
    "scores[i] with the token of the prompt": "test_against_reference::test_every_number_equals_its_definition",
    "raw activations as JSON": "test_engine::test_a_full_trace_of_512_tokens_fits_into_a_history",
    "attention asked for and silently missing": "test_engine::test_asked_for_attention_is_there_or_explained",
    "a batch of one": "test_many_requests::test_a_trace_is_the_same_alone_among_16_and_after_neighbours_were_cancelled",
    "reductions in every hook": "test_exactness::test_reading_launches_few_kernels_whatever_the_depth",
    "reading changes the text": "test_exactness_matrix::test_reading_changes_nothing",
    "a hook that writes": "test_exactness_matrix::test_a_hook_that_writes_or_draws_while_it_reads_would_be_noticed",
    # Further ones
    "a mask that is lost": "test_against_reference::test_every_number_equals_its_definition",
    "hooks after torch.compile": "test_options::"
    "test_a_model_that_was_compiled_before_is_refused_because_its_hooks_would_never_fire",
    "hook calls counted as tokens": "test_slots::test_long_prompts_are_fed_in_pieces_between_the_steps_of_the_others",
    "no number becomes a number": "test_engine::test_weights_that_are_not_numbers_make_everything_unknown",
    "0 times infinity in a neighbour's row": "test_slots::"
    "test_a_row_that_overflowed_does_not_spoil_its_neighbours_or_the_next_one_in_its_place",
    "layers on several devices": "test_options::"
    "test_a_device_map_gives_the_same_numbers_also_where_half_the_blocks_lie_on_disk",
    "positions of a left-padded batch": "test_against_reference::"
    "test_a_request_gets_the_same_trace_alone_and_among_ragged_neighbours",
    "the trace of a cancelled request": "test_slots::test_a_cancelled_request_frees_its_row_within_one_step",
    "sums that do not move with their row": "test_against_reference::test_every_number_equals_its_definition",
    "one mask for layers of several kinds": "test_slots::test_every_family_gives_the_tokens_of_solo_runs",
    "a prompt of one token taken for a step": "test_slots::test_every_family_gives_the_tokens_of_solo_runs",
    "the largest router logits taken for the choice": "test_selfcheck::"
    "test_the_choice_is_the_routers_own_and_not_the_largest_logits",
    "a fused kernel that bypasses the router": "test_selfcheck::"
    "test_a_router_whose_indices_are_all_the_same_is_unsupported",
    "a retry that draws other tokens": "test_failures::"
    "test_whichever_allocation_fails_every_request_ends_with_the_numbers_it_has_anyway",
    "a first token doubled by a chat template": "test_engine::"
    "test_a_first_token_that_the_prompt_already_has_is_not_doubled",
}  # fmt: skip


@pytest.mark.parametrize("trap", list(TRAPS))
def test_every_trap_has_its_test(trap: str) -> None:
    module, _, name = TRAPS[trap].partition("::")
    source = (Path(__file__).parent / f"{module}.py").read_text()
    assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{trap}: there is no {name} in {module}.py any more"


def ask(prompt: str, **sampling: Any) -> Request:
    capture = ThoughtCapture(top_alternatives=5)
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=6, **sampling), capture=capture)


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_the_last_layer_is_read_before_the_final_norm(path: str, make_model: Any, make_engine: Any) -> None:
    model = make_model("llama")
    model.model.norm.weight.data.mul_(5)
    engine = make_engine("llama", model=model)
    (row,) = read(engine, [ask("what is the last layer")], path)
    ids = torch.tensor([[*row.prompt, *row.answer[:-1]]])
    with torch.inference_mode():
        states = model.model(input_ids=ids, output_hidden_states=True).hidden_states
        before = [model.model.layers[-1]]
        raw: list[torch.Tensor] = []
        handle = before[0].register_forward_hook(
            lambda _m, _a, out: raw.append(out if torch.is_tensor(out) else out[0])
        )
        model(input_ids=ids)
        handle.remove()
    rows = slice(len(row.prompt) - 1, None)
    after_norm = float(states[-1][0, rows].norm(dim=-1).mean())
    assert row.trace.layer_norms[-1] == pytest.approx(float(raw[0][0, rows].norm(dim=-1).mean()), rel=1e-4)
    assert row.trace.layer_norms[-1] != pytest.approx(after_norm, rel=0.2)


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_settings_of_the_draw_do_not_touch_the_numbers(path: str, make_engine: Any) -> None:
    engine = make_engine("llama")
    greedy, cut = read(engine, [ask("same words"), ask("same words", temperature=1e-3, top_k=2, top_p=0.5)], path)
    assert cut.answer == greedy.answer
    for name in ("token_confidences", "logits_entropy", "token_margins"):
        assert getattr(cut.trace, name) == pytest.approx(getattr(greedy.trace, name), abs=1e-5)
    assert max(greedy.trace.logits_entropy) > 0.01
