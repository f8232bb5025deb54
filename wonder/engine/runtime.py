"""What the loops need to know of a model, gathered from the model and its tokenizer."""

from typing import Any

from transformers import PreTrainedModel

from wonder.anatomy import examine
from wonder.engine.experts import ExpertKernels
from wonder.engine.layout import Side
from wonder.engine.loop import Runtime
from wonder.engine.taps import Taps
from wonder.errors import ModelNotUsable


def runtime_of(model: PreTrainedModel, tokenizer: Any, side: Side) -> Runtime:
    """Look a model over, and put hooks on it.

    Args:
        model: Set to evaluation mode.
        tokenizer: Its tokenizer.
        side: Where prompts of a padded batch are padded, if the model has the choice.

    Raises:
        ModelNotUsable: Its blocks cannot be read, or it was compiled.
    """
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        raise ModelNotUsable(
            f"{type(model).__name__} was given to torch.compile before, and hooks that come after that never fire: "
            "hand over the model as it was loaded"
        )
    model.eval()  # type: ignore[no-untyped-call]
    anatomy = examine(model)
    return Runtime(
        model=model,
        anatomy=anatomy,
        taps=Taps(anatomy),
        experts=ExpertKernels(model),
        tokenizer=tokenizer,
        special_ids=frozenset(int(token) for token in tokenizer.all_special_ids),
        end_ids=_end_ids(model, tokenizer),
        pad_id=_pad_id(tokenizer, anatomy.vocabulary),
        side="left" if anatomy.is_recurrent or _is_flash(model) else side,
        equal_lengths=anatomy.is_recurrent,
    )


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    ends: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ends.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(int(token) for token in ends)


def _is_flash(model: PreTrainedModel) -> bool:
    """Flash attention takes no mask but padding, and that on the left."""
    return "flash" in str(model.config._attn_implementation)


def _pad_id(tokenizer: Any, vocabulary: int) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and int(token) < vocabulary:
            return int(token)
    return 0
