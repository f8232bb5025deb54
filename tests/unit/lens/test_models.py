"""Decoder and encoder: every path gives the same numbers, and gradients are those of the textbook."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from lens_training.objectives.losses import advantages, entropy, in_batch_delta, kl, kl_estimate, relative_error
from lens_training.objectives.straight_through import straight_through_embed
from tests.unit.lens.test_target import LAYER, NAMES, target
from wonder.errors import SettingNotSupported
from wonder.lens.decoder import FORBIDDEN, Decoder, gumbel
from wonder.lens.encoder import Encoder

BOS, MARK = 1, 4
INJECTIONS = ["projection", "scale", "per_layer", "additive"]


def decoder(name: str = "llama", injection: str = "projection", left: tuple[int, ...] = (BOS, 9)) -> Decoder:
    made = target(name)
    width = made.d_model
    torch.manual_seed(7)
    found = Decoder(
        copy.deepcopy(made.model).requires_grad_(),
        torch.randn(width),
        0.3,
        left=left,
        right=[MARK],
        forbidden=[0, MARK],
        injection=injection,  # type: ignore[arg-type]
    )
    return found.eval()


def activations(made: Decoder, rows: int = 5) -> Tensor:
    return torch.randn(rows, made.anatomy.d_model, generator=torch.Generator().manual_seed(2)) * 3


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_the_cached_rollout_is_the_naive_one_and_the_teacher_forced_pass_gives_its_logits(
    name: str, injection: str
) -> None:
    made = decoder(name, injection)
    x, length, seed = activations(made), 6, 11
    found = made.rollout(x, length, seed=seed, temperature=0.8)
    ids = torch.zeros(len(x), 0, dtype=torch.long)
    with torch.no_grad():
        for step in range(length):
            again = torch.cat([ids, torch.zeros(len(x), 1, dtype=torch.long)], 1)
            logits = made.token_logits(x, again)[:, step]
            drawn = (logits / 0.8 + gumbel(seed, step, logits.shape, logits.device)).argmax(-1)
            ids = torch.cat([ids, drawn[:, None]], 1)
    assert torch.equal(found.ids_BT, ids)
    assert len(set(map(tuple, ids.tolist()))) > 1


LONG = (BOS, *range(9, 49))
"""So long a prompt that running it once pays for three rows."""


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_texts_that_share_a_prompt_are_drawn_from_the_logits_of_texts_that_do_not(name: str, injection: str) -> None:
    alone, sharing = decoder(name, injection, LONG), decoder(name, injection, LONG)
    alone._pays = lambda _saved: False  # type: ignore[method-assign]
    x, length, group = activations(alone, 3), 6, 20
    each = x.repeat_interleave(group, 0)
    assert sharing._pays(2 * len(LONG))
    assert not sharing._pays(2)
    ids = alone.rollout(each, length, seed=5).ids_BT
    assert torch.equal(sharing.rollout(x, length, seed=5, group=group).ids_BT, ids)
    found, shared, given = alone.token_logits(each, ids), sharing.token_logits(x, ids), sharing.token_logits(each, ids)
    assert found.shape == (3 * group, length, alone.anatomy.vocabulary)
    for other in (shared, given):
        torch.testing.assert_close(other, found, atol=1e-5, rtol=0)
    gradients = []
    for made, logits in ((alone, found), (sharing, shared)):
        logits.log_softmax(-1).gather(-1, ids[..., None]).mean().backward()
        gradients.append({name: p.grad for name, p in made.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    scale = max(float(g.abs().max()) for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5 * scale, rtol=1e-3, msg=name)


@pytest.mark.parametrize("left", [(BOS, 9), LONG])
def test_the_logits_of_a_rollout_are_those_of_the_teacher_forced_pass(left: tuple[int, ...]) -> None:
    made = decoder(left=left)
    x, group = activations(made), 3
    with torch.no_grad():
        ids = made.rollout(x, 7, seed=2, group=group).ids_BT
        logits, cache = made.begin(x, group=group, room=6)
        rolled = [logits]
        for step in range(6):
            rolled.append(made.go_on(made.embedding(ids[:, step]), cache))
        torch.testing.assert_close(torch.stack(rolled, 1), made.token_logits(x, ids), atol=1e-5, rtol=0)


def test_a_cache_with_room_holds_what_one_without_holds_and_moves_nothing() -> None:
    made = decoder()
    x = activations(made)
    with torch.no_grad():
        _, cache = made.begin(x, room=2)
        keys = [layer.keys for layer in cache.layers]
        for _ in range(3):
            made.go_on(made.embedding(torch.full((5,), 9)), cache)
    with torch.enable_grad():
        _, plain = made.begin(x, room=2)
        for _ in range(3):
            made.go_on(made.embedding(torch.full((5,), 9)), plain)
    for before, layer, other in zip(keys, cache.layers, plain.layers, strict=True):
        assert layer.keys.shape == other.keys.shape
        torch.testing.assert_close(layer.keys, other.keys)
        torch.testing.assert_close(layer.values, other.values)
        assert before.data_ptr() != layer.keys.data_ptr()  # one token more than there was room for
        assert layer._room[0].data_ptr() == before.data_ptr()


def test_blocks_that_are_run_again_for_their_gradient_meet_no_cache() -> None:
    made = decoder(left=LONG)
    x = activations(made)
    ids = made.rollout(x, 5, seed=1).ids_BT
    found = []
    for again in (False, True):
        if again:
            made.model.activation_checkpointing_enable({"use_reentrant": False})
        made.train()
        made.zero_grad()
        assert torch.equal(made.rollout(x, 5, seed=1).ids_BT, ids)
        assert made.training
        made.token_logits(x, ids).logsumexp(-1).sum().backward()
        found.append([p.grad.clone() for p in made.maps.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with pytest.raises(SettingNotSupported, match="ste_parallel"):
        made.begin(x)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_another_activation_gives_another_text_and_gradients_reach_the_map(injection: str) -> None:
    made = decoder("llama", injection)
    x = activations(made)
    ids = made.rollout(x, 4).ids_BT
    one, other = made.token_logits(x, ids), made.token_logits(x.flip(0), ids)
    assert not torch.allclose(one, other)
    one.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.maps.parameters())


def test_forbidden_tokens_are_never_spoken_in_any_path() -> None:
    made = decoder()
    x = activations(made, 64)
    ids = made.rollout(x, 8, seed=3).ids_BT
    assert not set(ids.flatten().tolist()) & {0, MARK}
    assert made.token_logits(x, ids)[..., MARK].max() < FORBIDDEN / 2


def test_the_same_seed_draws_the_same_texts_and_no_seed_the_likeliest() -> None:
    made = decoder()
    x = activations(made)
    assert torch.equal(made.rollout(x, 5, seed=1).ids_BT, made.rollout(x, 5, seed=1).ids_BT)
    assert not torch.equal(made.rollout(x, 5, seed=1).ids_BT, made.rollout(x, 5, seed=2).ids_BT)
    greedy = made.rollout(x, 5).ids_BT
    assert torch.equal(made.token_logits(x, greedy).argmax(-1), greedy)


def test_rows_drawn_apart_are_the_rows_drawn_together() -> None:
    made = decoder()
    x = activations(made, 40)
    whole = made.rollout(x, 5, seed=1).ids_BT
    for bounds in ((0, 16, 40), (0, 7, 23, 40)):
        parts = [
            made.rollout(x[first:last], 5, seed=1, first=first).ids_BT for first, last in itertools.pairwise(bounds)
        ]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(made.rollout(x[7:], 5, seed=1).ids_BT, whole[7:])


def test_noise_draws_from_the_softmax_exactly() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])
    drawn = (logits + gumbel(1, 0, (200_000, 3), torch.device("cpu"))).argmax(-1)
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, logits.softmax(-1), atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_encoder_gives_the_targets_own_state(name: str) -> None:
    made = target(name)
    encoder = Encoder(copy.deepcopy(made.model), LAYER, left=[BOS]).eval()
    text = torch.randint(3, 300, (4, 7), generator=torch.Generator().manual_seed(1))
    whole = torch.cat([torch.full((4, 1), BOS), text], 1)
    own = made.capture(whole, torch.full((4,), 7)).activation_BD
    torch.testing.assert_close(encoder(encoder.embed(text)), own, atol=1e-5, rtol=1e-5)


def test_the_straight_through_gradient_is_autograds_of_the_textbook_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, noise = (torch.randn(3, 4, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    table, weight = (torch.randn(9, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    ids, tau = (logits + noise).argmax(-1), 0.7
    found = []
    for way in ("custom", "textbook"):
        one, two = logits.clone().requires_grad_(), table.clone().requires_grad_()
        if way == "custom":
            value = straight_through_embed(one, noise, ids, two, tau)
        else:
            soft = ((one + noise) / tau).softmax(-1)
            hard = torch.nn.functional.one_hot(ids, 9).double()
            value = (hard - soft.detach() + soft) @ two
        (value * weight[:4]).sum().backward()
        found.append((value.detach(), one.grad, two.grad))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-12, rtol=0)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-12, rtol=0)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-12, rtol=0)


def test_the_kl_sums_over_the_vocabulary_and_has_its_direction() -> None:
    p, q = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    expected = sum(a * (a.log() - b.log()) for a, b in zip(p.softmax(-1)[0], q.softmax(-1)[0], strict=True))
    torch.testing.assert_close(kl(p, q)[0], torch.as_tensor(expected))
    assert not torch.allclose(kl(p, q), kl(q, p))
    assert kl(p, p).item() == pytest.approx(0, abs=1e-7)


def test_the_estimate_of_the_kl_is_unbiased_and_never_negative() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
    each = kl_estimate(p.log(), q.log())
    assert (each >= 0).all()
    torch.testing.assert_close((p * each).sum(), (p * (p / q).log()).sum())


def test_the_other_terms_are_their_formulas() -> None:
    a = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    mean = a.mean(0)
    variance = float((a - mean).square().sum(-1).mean())
    assert 1 - relative_error(mean.expand_as(a), a, variance).mean().item() == pytest.approx(0, abs=1e-6)
    assert relative_error(a, a, variance).max().item() == 0
    scaled = advantages(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    torch.testing.assert_close(scaled[0], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0)
    assert scaled[1].abs().max().item() == 0
    assert entropy(torch.zeros(1, 1, 8)).item() == pytest.approx(2.0794415)
    x = a.clone().requires_grad_()
    in_batch_delta(x, a + 1, torch.tensor([1, 0, 3, 2, 5, 4])).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(a))


def test_a_layer_that_the_encoder_cannot_have_is_refused() -> None:
    made: Any = copy.deepcopy(target("llama").model)
    with pytest.raises(SettingNotSupported, match="blocks 0 to 3"):
        Encoder(made, 4, left=[BOS])
