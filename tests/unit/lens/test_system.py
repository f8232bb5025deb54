"""One training step: what each objective differentiates, and that two ways to the same gradient agree."""

import copy

import pytest
import torch

from lens_training.batch import Batch, Statistics
from lens_training.system import LensSystem, Objective, Weights
from tests.unit.lens.test_target import LAYER, target
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

BOS, MARK = 1, 4


def system(injection: str = "projection") -> tuple[LensSystem, Batch]:
    made = target("llama")
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (6, 24), generator=generator)
    pos = torch.randint(10, 24, (6,), generator=generator)
    batch = Batch(made.capture(ids, pos).activation_BD, ids, pos, torch.arange(6))
    statistics = Statistics.of(batch.activation_BD)
    torch.manual_seed(4)
    decoder = Decoder(
        copy.deepcopy(made.model).requires_grad_(),
        statistics.mean_D,
        1 / statistics.variance**0.5,
        left=[BOS],
        right=[MARK],
        forbidden=[0, MARK],
        injection=injection,  # type: ignore[arg-type]
    )
    encoder = Encoder(copy.deepcopy(made.model).requires_grad_(), LAYER, left=[BOS])
    return LensSystem(made, decoder, encoder, statistics, length=5).train(False), batch


def gradients(made: LensSystem, part: str) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in getattr(made, part).named_parameters() if p.grad is not None}


def test_the_two_pass_gradient_is_that_of_the_recurrent_one_with_feedback_taken_for_constant() -> None:
    made, batch = system()
    found = {}
    for objective, weights in (
        ("ste_parallel", Weights(tau=0.7)),
        ("ste_recurrent", Weights(tau=0.7, detach_feedback=True)),
    ):
        made.zero_grad()
        output = made(batch, objective, 5, weights)
        output.loss.backward()
        found[objective] = (output, gradients(made, "decoder"), gradients(made, "encoder"))
    one, other = found["ste_parallel"], found["ste_recurrent"]
    assert one[0].loss.item() == pytest.approx(other[0].loss.item(), rel=1e-5)
    for mine, theirs in ((one[1], other[1]), (one[2], other[2])):
        assert mine.keys() == theirs.keys()
        scale = max(g.abs().max().item() for g in mine.values())
        assert scale > 0
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], atol=1e-4 * scale, rtol=1e-3, msg=name)


def test_the_recurrent_gradient_has_a_path_that_the_two_pass_one_gives_up() -> None:
    made, batch = system()
    found = []
    for detach in (True, False):
        made.zero_grad()
        made(batch, "ste_recurrent", 5, Weights(detach_feedback=detach)).loss.backward()
        found.append(gradients(made, "decoder")["maps.0.weight"])
    assert not torch.allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.parametrize("objective", ["warm_start", "ste_parallel", "ste_recurrent", "grpo"])
@pytest.mark.parametrize("injection", ["projection", "per_layer"])
def test_every_objective_moves_decoder_and_encoder_and_never_the_target(objective: Objective, injection: str) -> None:
    made, batch = system(injection)
    before = copy.deepcopy(made.target.state_dict())
    made.anchor_to(copy.deepcopy(made.decoder))
    weights = Weights(kl=0.1, lm=0.1, anchor=0.1, entropy=0.1, entropy_floor=9.0, delta=True)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    output = made(batch, objective, 3, weights)
    output.loss.backward()
    for part in (made.decoder, made.encoder):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in made.target.state_dict().items())
    wanted = {"entropy"} if objective == "warm_start" else {"error", "kl", "lm", "anchor", "entropy_lack"}
    assert objective == "warm_start" or wanted <= output.metrics.keys()


def test_the_target_and_the_anchor_are_no_part_of_what_is_saved() -> None:
    made, _ = system()
    made.anchor_to(copy.deepcopy(made.decoder))
    assert {name.split(".")[0] for name in made.state_dict()} == {"decoder", "encoder"}


def test_a_policy_gradient_raises_the_better_of_two_texts() -> None:
    made, batch = system()
    x = batch.activation_BD
    optimizer = torch.optim.Adam(made.decoder.parameters(), lr=1e-3)
    errors = []
    for step in range(25):
        output = made(batch, "grpo", 100 + step, Weights())
        errors.append(output.metrics["error"])
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert sum(errors[-5:]) < sum(errors[:5])
    assert x.grad is None


def test_an_epoch_holds_every_row_once_and_the_order_depends_on_seed_and_step_alone() -> None:
    _, batch = system()
    numbered = Batch(batch.activation_BD, batch.ids_BS, batch.pos_B, torch.arange(6))

    def order(seed: int, steps: range) -> list[int]:
        return [int(at) for step in steps for at in numbered.shuffled(2, seed, step).document_B]

    assert sorted(order(1, range(3))) == list(range(6))
    assert sorted(order(1, range(3, 6))) == list(range(6))
    assert order(1, range(3)) != order(1, range(3, 6))
    assert order(1, range(2, 4)) == order(1, range(4))[4:]
    assert order(2, range(3)) != order(1, range(3))


def test_the_tail_ends_at_the_position() -> None:
    _, batch = system()
    tail = batch.tail(4)
    for row, pos in enumerate(batch.pos_B.tolist()):
        assert tail[row].tolist() == batch.ids_BS[row, pos - 3 : pos + 1].tolist()
