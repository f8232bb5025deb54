from typing import Any

import pytest
import torch

from tests.unit.engine.reference import eager_twin, read, reference
from wonder.engine.request import Request
from wonder.engine.sampling import Drawer
from wonder.trace.sampling import Sampling


def test_draws_follow_the_filtered_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    drawer = Drawer([Sampling(temperature=1.0, top_k=3, top_p=0.8, seed=1)])
    counts = torch.zeros(4)
    for _ in range(4000):
        token, probability = drawer.draw(logits[None])
        assert probability is not None
        counts[token] += 1
        want = [0.5 / 0.8, 0.3 / 0.8][int(token)]
        assert float(probability) == pytest.approx(want, rel=1e-5)
    torch.testing.assert_close(counts / 4000, torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)


def test_unlikely_tokens_are_left_out_by_their_share_of_the_likeliest() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    drawer = Drawer([Sampling(temperature=1.0, min_p=0.4, seed=1)])
    found = {int(token): float(p) for token, p in (drawer.draw(logits) for _ in range(200)) if p is not None}
    assert found == {0: pytest.approx(0.5 / 0.8, rel=1e-5), 1: pytest.approx(0.3 / 0.8, rel=1e-5)}
    everything = Drawer([Sampling(temperature=1.0, min_p=0.05, seed=1)])
    assert {int(everything.draw(logits)[0]) for _ in range(200)} == {0, 1, 2, 3}


def test_temperature_is_applied_before_the_filters() -> None:
    drawer = Drawer([Sampling(temperature=2.0, seed=1)])
    token, probability = drawer.draw(torch.tensor([[2.0, 0.0]]))
    assert probability is not None
    assert float(probability) == pytest.approx(float(torch.tensor([1.0, 0.0]).softmax(0)[int(token)]))


def test_rows_without_a_number_are_drawn_without_failing() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [float("-inf"), 0.0]])
    tokens, _ = Drawer([Sampling(temperature=1.0, seed=1)] * 3).draw(logits)
    assert tokens[2] == 1


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_a_draw_depends_on_the_seed_and_not_on_the_neighbours(path: str, make_engine: Any) -> None:
    engine = make_engine("llama")

    def ask(seed: int | None, prompt: str = "hello") -> Request:
        return Request(prompt=prompt, sampling=Sampling(max_new_tokens=12, temperature=1.5, seed=seed))

    alone = read(engine, [ask(5)], path)[0].answer
    together = read(engine, [ask(9, "other"), ask(5), ask(None, "a third, longer prompt")], path)
    assert together[1].answer == alone
    assert read(engine, [ask(6)])[0].answer != alone
    assert read(engine, [ask(None)])[0].answer != read(engine, [ask(None)])[0].answer


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_the_global_random_state_is_left_alone(path: str, make_engine: Any) -> None:
    engine = make_engine("llama")
    before = torch.get_rng_state()
    read(engine, [Request(prompt="x", sampling=Sampling(max_new_tokens=4, temperature=1.0))], path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_raw_numbers_do_not_depend_on_how_tokens_are_drawn(path: str, make_model: Any, make_engine: Any) -> None:
    model = make_model("llama")
    twin = eager_twin(model)
    engine = make_engine("llama", model=model)
    sampling = Sampling(max_new_tokens=10, temperature=0.3, top_k=5, top_p=0.7, seed=11)
    row = read(engine, [Request(prompt="hello", sampling=sampling)], path)[0]
    want = reference(twin, row.prompt, row.answer)
    assert row.trace.token_confidences == pytest.approx(want.chosen, rel=1e-4)
    assert row.trace.logits_entropy == pytest.approx(want.entropy, rel=1e-4)
    assert row.trace.generation_probs is not None
    assert row.trace.generation_probs != pytest.approx(want.chosen, rel=1e-2)
    assert all(p is not None and p > 0 for p in row.trace.generation_probs)


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_greedy_rows_have_no_generation_probabilities_even_beside_sampled_ones(path: str, make_engine: Any) -> None:
    engine = make_engine("llama")
    sampled = Request(prompt="a", sampling=Sampling(max_new_tokens=3, temperature=1.0))
    rows = read(engine, [Request(prompt="a", sampling=Sampling(max_new_tokens=3)), sampled], path)
    assert rows[0].trace.generation_probs is None
    assert rows[1].trace.generation_probs is not None
