"""Reading and replacing an activation: exact, on every architecture, by the long way and the short."""

from typing import Any

import pytest
import torch

from lens_training.models.target import TargetModel
from tests.unit.engine.conftest import FAMILIES
from wonder.errors import SettingNotSupported

LAYER = 1
NAMES = ["llama", "mistral", "gpt2", "gemma2", "gemma3", "qwen3_moe", "mixtral", "llama4", "deepseek_v3", "gpt_oss"]


def target(name: str, layer: int = LAYER) -> TargetModel:
    import transformers

    torch.manual_seed(3)
    model: Any = transformers.AutoModelForCausalLM.from_config(FAMILIES[name]())
    return TargetModel(model.float().eval(), layer)


def world(made: TargetModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 300, (4, 20), generator=generator)
    pos = torch.tensor([5, 19, 12, 1])
    return ids, pos, torch.randn(4, made.d_model, generator=generator)


@pytest.mark.parametrize("name", NAMES)
def test_putting_the_activation_back_changes_nothing(name: str) -> None:
    made = target(name)
    ids, pos, _ = world(made)
    seen = made.capture(ids, pos)
    original = made.model(input_ids=ids).logits[torch.arange(4), pos].float()
    torch.testing.assert_close(made.logits(seen.final_BD), original, atol=1e-5, rtol=1e-5)
    for mode in ("full", "suffix"):
        found = made.logits_with_replacement(ids, pos, seen.activation_BD, mode)  # type: ignore[arg-type]
        torch.testing.assert_close(found, original, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_short_way_gives_the_logits_and_gradients_of_the_long_one(name: str) -> None:
    made = target(name)
    ids, pos, other = world(made)
    found = {}
    for mode in ("full", "suffix"):
        x = other.clone().requires_grad_()
        logits = made.logits_with_replacement(ids, pos, x, mode)  # type: ignore[arg-type]
        logits.square().sum().backward()
        found[mode] = (logits.detach(), x.grad)
    torch.testing.assert_close(found["suffix"][0], found["full"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["suffix"][1], found["full"][1], atol=1e-4, rtol=1e-4)
    assert found["full"][0].std() > 0


def test_a_replacement_really_replaces_and_what_comes_after_a_position_does_not_matter() -> None:
    made = target("llama")
    ids, pos, other = world(made)
    prefix = made.prefix(ids)
    one = made.logits_with_replacement(ids, pos, other, prefix=prefix)
    assert not torch.allclose(one, made.logits_with_replacement(ids, pos, 2 * other, prefix=prefix))
    later = ids.clone()
    later[0, 6:] = 7
    torch.testing.assert_close(made.logits_with_replacement(later, pos, other)[0], one[0])


def test_the_target_is_frozen_and_whole_again_after_a_replacement() -> None:
    made = target("llama")
    ids, pos, other = world(made)
    before = made.model(input_ids=ids).logits
    made.logits_with_replacement(ids, pos, other)
    made.logits_with_replacement(ids, pos, other, "full")
    assert torch.equal(made.model(input_ids=ids).logits, before)
    assert not any(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize("layer", [-1, 3, 99])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(SettingNotSupported, match="0 to 2 can be read"):
        target("llama", layer)
