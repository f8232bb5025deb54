"""Small systems of random weights around one target: full copies, or adapters on it."""

import copy
from typing import Any

import torch

from lens_training.batch import Batch, Statistics
from lens_training.models.adapters import AdaptedDecoder, AdaptedEncoder, Adapters
from lens_training.models.target import TargetModel
from lens_training.run_spec import LoraSpec
from lens_training.system import LensSystem
from tests.unit.lens.test_target import LAYER, target
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

BOS, MARK = 1, 4


def rows(made: TargetModel) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (6, 24), generator=generator)
    pos = torch.randint(10, 24, (6,), generator=generator)
    return Batch(made.capture(ids, pos).activation_BD, ids, pos, torch.arange(6))


def system(
    injection: str = "projection", *, adapters: LoraSpec | None = None, name: str = "llama"
) -> tuple[LensSystem, Batch]:
    made = target(name)
    batch = rows(made)
    statistics = Statistics.of(batch.activation_BD)
    options: dict[str, Any] = {"left": [BOS], "right": [MARK], "forbidden": [0, MARK], "injection": injection}
    scale = 1 / statistics.variance**0.5
    torch.manual_seed(4)
    shared = None if adapters is None else Adapters(made.model, adapters)  # type: ignore[arg-type]
    if shared is None:
        decoder = Decoder(copy.deepcopy(made.model).requires_grad_(), statistics.mean_D, scale, **options)
        encoder = Encoder(copy.deepcopy(made.model).requires_grad_(), LAYER, left=[BOS])
    else:
        decoder = AdaptedDecoder(shared, statistics.mean_D, scale, **options)
        encoder = AdaptedEncoder(shared, LAYER, left=[BOS])
    return LensSystem(made, decoder, encoder, statistics, length=5, adapters=shared).train(False), batch
