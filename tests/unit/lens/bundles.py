"""Lenses of tiny random models as bundles, in a second each."""

import copy
from pathlib import Path
from typing import Any

import torch

from lens_training.activations import Source
from lens_training.batch import Statistics
from lens_training.export import export, states_digest
from lens_training.models.target import TargetModel
from lens_training.system import LensSystem
from tests.unit.engine.conftest import build
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder
from wonder.lens.manifest import LensManifest, LensMetrics
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.explanation import Fidelity

BOS, MARK, LENGTH = 1, 4, 5


def metrics(fve: float = 0.8, data: str = "d" * 64, **changes: Any) -> LensMetrics:
    """As an evaluation would give them."""
    fields: dict[str, Any] = {
        "fve": Fidelity(value=fve, low=fve - 0.02, high=fve + 0.02, rows=512),
        "kl_recovered": Fidelity(value=0.85, low=0.8, high=0.9, rows=512),
        "kl_mean_nats": 3.0,
        "controls": {"shuffled": Fidelity(value=-fve, low=-fve - 0.02, high=-fve + 0.005, rows=512)},
        "documents": 100,
        "data_sha256": data,
    }
    return LensMetrics(**(fields | changes))


def states(model: Any, layer: int, rows: int = 64) -> torch.Tensor:
    """Of random contexts."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 250, (rows, 16), generator=generator)
    return TargetModel(model, layer).capture(ids, torch.full((rows,), 15)).activation_BD


def system(model: Any, layer: int = 1, injection: str = "projection") -> tuple[LensSystem, Statistics, torch.Tensor]:
    """An untrained lens whose parts are all away from where they begin, and the states it was made with."""
    state_ND = states(model, layer)
    statistics = Statistics.of(state_ND)
    torch.manual_seed(4)
    decoder = Decoder(
        copy.deepcopy(model).requires_grad_(True),
        statistics.mean_D,
        1 / statistics.variance**0.5,
        left=[BOS],
        right=[MARK],
        forbidden=[0, BOS, 2],
        injection=injection,  # type: ignore[arg-type]
        written_blocks=3,
    )
    encoder = Encoder(copy.deepcopy(model).requires_grad_(True), layer, left=[BOS])
    made = LensSystem(TargetModel(model, layer), decoder, encoder, statistics, length=LENGTH).train(False)
    with torch.no_grad():
        for parameter in [*decoder.parameters(), *encoder.parameters()]:
            parameter += 0.05 * torch.randn_like(parameter)
    return made, statistics, state_ND


def source(model: Any, layer: int, **changes: Any) -> Source:
    fields: dict[str, Any] = {
        "model": "tiny",
        "revision": "1",
        "fingerprint": model_fingerprint(model),
        "model_dtype": "float32",
        "quantization": "none",
        "layer": layer,
        "n_layers": model.config.get_text_config().num_hidden_layers,
        "d_model": model.config.get_text_config().hidden_size,
        "vocabulary": model.config.get_text_config().vocab_size,
    }
    return Source(**(fields | changes))


def write(
    folder: Path, tokenizer: Any, family: str = "llama", layer: int = 1, injection: str = "projection", **named: Any
) -> tuple[LensManifest, LensSystem, torch.Tensor]:
    """A bundle in `folder`, the system it is of, and some states."""
    model = build(family)
    made, statistics, state_ND = system(model, layer, injection)
    judged = named.pop("metrics", None) or metrics(data=states_digest(state_ND))
    fields = {"name": "tiny", "rows": len(state_ND), **named}
    found = export(made, statistics, judged, tokenizer, source(model, layer), folder, **fields)
    return found, made, state_ND
