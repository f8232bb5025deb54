"""Adapters on one shared base: at first the numbers of full copies, then two models that never touch the target."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_training.models.adapters import Adapters
from lens_training.run_spec import LoraSpec, ParallelSpec, Phase, Run
from lens_training.system import Weights
from lens_training.train.loop import Trainer
from tests.unit.lens.systems import LAYER, system
from wonder.errors import ExtraMissing, SpecError

LORA = LoraSpec(rank=4, alpha=8)
RUN = Run(
    phases=(
        Phase(objective="warm_start", steps=4, batch=4),
        Phase(objective="grpo", steps=4, batch=3, anchor="0.1", kl="0.1", lm="0.1"),
    ),
    average=0.9,
    checkpoint_every=3,
)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_untrained_adapters_give_what_full_copies_give(name: str) -> None:
    full, batch = system(name=name)
    lora, _ = system(name=name, adapters=LORA)
    x = batch.activation_BD
    ids = full.decoder.rollout(x, 5, seed=1).ids_BT
    assert torch.equal(lora.decoder.rollout(x, 5, seed=1).ids_BT, ids)
    assert torch.equal(lora.decoder.token_logits(x, ids), full.decoder.token_logits(x, ids))
    assert torch.equal(lora.reconstruct(ids), full.reconstruct(ids))
    for of in ("activation_BD", "final_BD"):
        mine, theirs = (getattr(made.target.capture(batch.ids_BS, batch.pos_B), of) for made in (lora, full))
        assert torch.equal(mine, theirs)
    found = [made.target.logits_with_replacement(batch.ids_BS, batch.pos_B, x.flip(0)) for made in (lora, full)]
    assert torch.equal(*found)


def test_only_adapters_maps_and_head_are_trained_and_each_belongs_to_one_model() -> None:
    made, _ = system(adapters=LORA)
    named = made.trained()
    assert not named["decoder"].keys() & named["encoder"].keys()
    for part, of in named.items():
        own = {name for name in of if ".lora_" in name}
        assert own
        assert all(f".{part}.weight" in name for name in own)
        assert {name.split(".")[1] for name in of.keys() - own} == {"maps" if part == "decoder" else "head"}
    blocks = {int(name.split(".layers.")[1].split(".")[0]) for name in named["encoder"] if ".layers." in name}
    assert blocks == set(range(LAYER + 1))


def test_the_encoder_runs_no_block_above_the_layer_and_the_decoder_all() -> None:
    made, batch = system(adapters=LORA)
    ran: list[int] = []
    for at, block in enumerate(made.target.anatomy.blocks):
        block.register_forward_hook(lambda *_, at=at: ran.append(at))
    ids = batch.tail(5)
    made.reconstruct(ids)
    assert ran == list(range(LAYER + 1))
    ran.clear()
    made.decoder.token_logits(batch.activation_BD, ids)
    assert ran == list(range(made.target.anatomy.n_layers))


def test_trained_adapters_leave_the_target_as_it_was_and_can_be_merged_into_plain_copies() -> None:
    made, batch = system(adapters=LORA)
    plain, _ = system()
    base = {name: value.clone() for name, value in made.target.model.state_dict().items() if "lora_" not in name}
    state = made.target.capture(batch.ids_BS, batch.pos_B).final_BD
    trainer = Trainer(made, batch, RUN)
    trainer.train()
    assert all(torch.equal(base[name], value) for name, value in made.target.model.state_dict().items() if name in base)
    assert torch.equal(made.target.capture(batch.ids_BS, batch.pos_B).final_BD, state)
    assert made.anchor is not None
    ids = batch.tail(5)
    spoken = made.decoder.token_logits(batch.activation_BD, ids)
    assert not torch.allclose(spoken, plain.decoder.token_logits(batch.activation_BD, ids), atol=1e-3)
    assert not torch.allclose(spoken, made.anchor.token_logits(batch.activation_BD, ids), atol=1e-3)
    decoder, encoder = made.plain()
    assert not any("lora" in name for part in (decoder, encoder) for name in part.state_dict())
    torch.testing.assert_close(decoder.token_logits(batch.activation_BD, ids), spoken, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(encoder(encoder.embed(ids)), made.reconstruct(ids), atol=1e-4, rtol=1e-4)
    assert torch.equal(made.decoder.token_logits(batch.activation_BD, ids), spoken)


def test_the_anchor_is_the_decoder_at_the_end_of_the_phase_before() -> None:
    for adapters in (None, LORA):
        made, batch = system(adapters=adapters)
        trainer = Trainer(made, batch, RUN)
        trainer.train(until=4)
        held = {name: value.detach().clone() for name, value in trainer.trained["decoder"].items()}
        trainer.train()
        anchored = made.anchored()
        assert anchored.keys() == held.keys()
        assert all(torch.equal(value, held[name]) for name, value in anchored.items())
        assert any(not torch.equal(value, held[name]) for name, value in trainer.trained["decoder"].items())


@pytest.mark.parametrize("adapters", [None, LORA])
def test_a_run_with_an_anchor_goes_on_to_the_bit(tmp_path: Path, adapters: LoraSpec | None) -> None:
    made, batch = system(adapters=adapters)
    whole = Trainer(made, batch, RUN)
    whole.train()
    for until in (2, 6, None):
        made, batch = system(adapters=adapters)
        trainer = Trainer(made, batch, RUN, tmp_path)
        assert trainer.resume() is (until != 2)
        trainer.train(until=until)
    for part, named in whole.trained.items():
        assert all(torch.equal(value, trainer.trained[part][name]) for name, value in named.items())
    assert all(torch.equal(value, trainer.average[name]) for name, value in whole.average.items())


@pytest.mark.parametrize("objective", ["warm_start", "ste_parallel", "ste_recurrent", "grpo"])
@pytest.mark.parametrize("adapters", [None, LORA])
def test_blocks_that_are_run_again_give_the_same_gradient(objective: Any, adapters: LoraSpec | None) -> None:
    found = []
    for again in (False, True):
        made, batch = system(adapters=adapters)
        phase = Phase(objective=objective, steps=1, batch=6, decoder_rate="1e-9", encoder_rate="1e-9", kl="0.1")
        run = Run(phases=(phase,), clip=1e9)
        trainer = Trainer(made, batch, run, parallel=ParallelSpec(gradient_checkpointing=again))
        trainer.train()
        found.append({name: p.grad for named in trainer.trained.values() for name, p in named.items()})
    scale = max(value.abs().max() for value in found[0].values() if value is not None)
    for name, value in found[0].items():
        assert value is not None, name
        torch.testing.assert_close(found[1][name], value, atol=float(scale) * 1e-6, rtol=1e-4, msg=name)


def test_in_bfloat16_gradients_reach_the_same_weights_and_point_the_same_way() -> None:
    found = []
    for autocast in ("none", "bfloat16"):
        made, batch = system()
        phase = Phase(objective="ste_parallel", steps=1, batch=6, decoder_rate="1e-9", encoder_rate="1e-9")
        trainer = Trainer(
            made,
            batch,
            Run(phases=(phase,), clip=1e9),
            parallel=ParallelSpec(autocast=autocast),  # type: ignore[arg-type]
        )
        ids = iter([torch.arange(30).view(6, 5) + 10] * 2)
        made._drawn = lambda *_, ids=ids: next(ids)  # type: ignore[method-assign]
        with torch.no_grad():
            made.decoder.rollout(batch.activation_BD, 2)
        trainer.train()
        found.append({name: p.grad for named in trainer.trained.values() for name, p in named.items()})
    assert all(value is not None and value.dtype == torch.float32 for value in found[1].values())
    one, other = (torch.cat([value.flatten() for value in grads.values()]) for grads in found)  # type: ignore[union-attr]
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_a_rollout_before_the_pass_takes_no_gradient_away_in_bfloat16() -> None:
    made, batch = system()
    phase = Phase(objective="grpo", steps=1, batch=6)
    trainer = Trainer(made, batch, Run(phases=(phase,)), parallel=ParallelSpec(autocast="bfloat16"))
    trainer.train()
    missing = [name for named in trainer.trained.values() for name, p in named.items() if p.grad is None]
    assert not missing


def test_what_cannot_be_is_refused_with_a_sentence(monkeypatch: Any) -> None:
    with pytest.raises(SpecError, match=r"no linear map q_poj; there are .*q_proj"):
        system(adapters=LoraSpec(modules=("q_poj",)))
    made, batch = system()
    with pytest.raises(SpecError, match="needs a GPU"):
        Trainer(made, batch, RUN, parallel=ParallelSpec(eight_bit_adam=True))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ExtraMissing, match=r"wonder-temporal\[lora\]"):
        Adapters(copy.deepcopy(made.target.model), LORA)  # type: ignore[arg-type]
    assert Weights().tau == 1
