"""From a specification to what trains: the frozen target, the lens around it, and its data."""

import copy
import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lens_training.batch import Statistics
from lens_training.dataset import ActivationDataset
from lens_training.dump import check_tokenizer, load_target
from lens_training.models.adapters import AdaptedDecoder, AdaptedEncoder, Adapters
from lens_training.models.target import TargetModel
from lens_training.run_spec import DecoderSpec, RunSpec
from lens_training.spec import Split
from lens_training.system import LensSystem
from lens_training.tokens import TokenStore
from wonder.errors import SpecError
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder


@dataclass(frozen=True)
class Bench:
    """Everything a stage after the dump works with."""

    spec: RunSpec
    target: TargetModel
    tokenizer: Any
    system: LensSystem
    statistics: Statistics
    tokens: TokenStore

    def rows(self, split: Split = "train", *, check: bool = True) -> ActivationDataset:
        """One split of the dump; its order is the run's.

        Raises:
            ArtifactError: The dump is not there, or harmed.
            SpecError: The split has no rows.
        """
        seed = self.spec.run.seed if self.spec.run is not None else 0
        return ActivationDataset(self.spec.activations, self.tokens, split, seed=seed, check=check)


def build(spec: RunSpec, device: str | None = None) -> Bench:
    """Load the target and put an untrained lens around it.

    Args:
        spec: Of the run; tokens and activations must be there.
        device: Where the models go; None: where the target is loaded.

    Raises:
        ArtifactError: The data are not there, or harmed.
        SpecError: They are of another model, tokenizer or layer; or no training is specified.
        ModelError: The target cannot be had.
    """
    if spec.run is None:
        raise SpecError(f"{spec.folder}: the specification has no run, so there is nothing to train: add run.phases")
    store = TokenStore(spec.tokens)
    target, tokenizer = load_target(spec.target, device)
    check_tokenizer(store, target, tokenizer)
    rows = ActivationDataset(spec.activations, store, "train", seed=spec.run.seed, check=False)
    if rows.manifest.spec != spec.dump:
        raise SpecError(
            f"the activations in {spec.activations} were dumped with other settings than dump says: dump again into "
            "another folder, or use the specification they were made with"
        )
    place = next(target.model.parameters()).device
    statistics = Statistics(rows.statistics.mean_D.to(place), rows.statistics.variance)
    torch.manual_seed(spec.run.seed)
    left, right = prompt_ids(spec.lens.decoder, tokenizer)
    scale = embedding_scale(target, statistics)
    options: dict[str, Any] = {
        "left": left,
        "right": right,
        "forbidden": forbidden_ids(spec.lens.decoder, tokenizer),
        "injection": spec.lens.decoder.injection,
        "written_blocks": spec.lens.decoder.written_blocks,
    }
    adapters: Adapters | None = None
    decoder: Decoder
    encoder: Encoder
    if spec.lens.adapters is not None:
        adapters = Adapters(target.model, spec.lens.adapters)
        decoder = AdaptedDecoder(adapters, statistics.mean_D, scale, **options)
        encoder = AdaptedEncoder(adapters, spec.target.layer, left=first_ids(tokenizer))
    else:
        # In float32, as a step is often smaller than what bfloat16 can add to a weight.
        decoder = Decoder(trained_copy(target.model), statistics.mean_D, scale, **options)
        encoder = Encoder(trained_copy(target.model), spec.target.layer, left=first_ids(tokenizer))
    neutral = (first_ids(tokenizer) or left or [0])[0]
    system = LensSystem(
        target,
        decoder,
        encoder,
        statistics,
        length=spec.lens.length,
        skip=spec.lens.skip,
        neutral=neutral,
        adapters=adapters,
    ).to(place)
    return Bench(spec, target, tokenizer, system, statistics, store)


def trained_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model whose weights are trained, in float32."""
    return cast(PreTrainedModel, copy.deepcopy(model).float().requires_grad_(True))  # type: ignore[no-untyped-call]


def embedding_scale(target: TargetModel, statistics: Statistics) -> float:
    """What makes a centred activation as long as a token: mean ‖embedding row‖ / √variance."""
    table = cast(nn.Embedding, target.model.get_input_embeddings())
    return float(table.weight.detach().float().norm(dim=-1).mean()) / math.sqrt(statistics.variance)


def first_ids(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text; at most one token."""
    found = tokenizer("")["input_ids"]
    if found:
        return [int(found[0])]
    return [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]


def prompt_ids(spec: DecoderSpec, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids before and after the activation."""
    said = [] if spec.left is None else tokenizer(spec.left, add_special_tokens=False)["input_ids"]
    right = tokenizer(spec.right, add_special_tokens=False)["input_ids"] if spec.right else []
    return [*first_ids(tokenizer), *said], [*right, *spec.right_ids]


def forbidden_ids(spec: DecoderSpec, tokenizer: Any) -> list[int]:
    """Tokens that are never spoken: special ones and those that are named."""
    return sorted({*map(int, tokenizer.all_special_ids), *spec.forbidden})
