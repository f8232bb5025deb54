"""Puts stored states into words: a request as JSON on standard input, the answer as one line of JSON.

The command line starts this as a process of its own, because it never loads torch itself.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from wonder.errors import ArtifactCorrupt, LensMismatch, RequestError, WonderError
from wonder.lens.bundle import load_lens, load_target
from wonder.lens.manifest import read_manifest
from wonder.trace.artifacts import ArtifactRef
from wonder.trace.explanation import Explanation
from wonder.trace.store import open_store

SINGLE: Final = ("last_prompt", "last_generated")
"""Aggregations that are one state each; a mean of many states is nothing that a lens was trained on."""


def explain(request: dict[str, Any]) -> list[Explanation]:
    """What a lens says of the stored states of one trace.

    Args:
        request: `bundle` (folder), `artifacts` (address of the store), `ref` (of the states), `fingerprint` (of the
            model that they are of), `tokens` (generated).

    Raises:
        LensMismatch: The lens is of another model.
        RequestError: Nothing was stored of the lens's layer.
        ArtifactError: States or lens are missing or harmed.
    """
    folder = Path(request["bundle"])
    manifest, ref = read_manifest(folder), ArtifactRef.model_validate(request["ref"])
    target = manifest.target
    if request["fingerprint"] != target.fingerprint:
        raise LensMismatch(
            f"the states are of the weights {request['fingerprint'][:12]}, the lens {manifest.id} was trained on "
            f"{target.model!r} ({target.fingerprint[:12]}): name a lens of that model"
        )
    data = open_store(request["artifacts"]).get(ref)
    try:
        tensors = load(data)
        layers = tensors["hidden.layers"].tolist()
        states_AD = {name: tensors[f"hidden.{name}"] for name in SINGLE}
    except (SafetensorError, KeyError) as error:
        raise ArtifactCorrupt(f"{ref.uri} holds no states ({error}): store them again") from error
    if target.layer not in layers:
        raise RequestError(
            f"the states of layers {', '.join(map(str, layers))} were stored, and the lens {manifest.id} reads layer "
            f"{target.layer}: run it with capture_hidden_states=[{target.layer}]"
        )
    model = None
    if manifest.weights == "adapters":
        model = load_target(target.model, target.revision)
    lens, at = load_lens(folder, target=model), layers.index(target.layer)
    states_PD = torch.stack([states_AD[name][at] for name in SINGLE])
    tokens: list[str] = request["tokens"]
    places = [0, max(0, len(tokens) - 1)]
    found = []
    for position, guess in zip(places, lens.explain(states_PD), strict=True):
        share = guess.reconstruction
        found.append(
            Explanation(
                position=position,
                token=tokens[position] if tokens else "",
                text=guess.text,
                layer=target.layer,
                reconstruction=min(1.0, share) if math.isfinite(share) else None,
                fidelity=manifest.metrics.fve,
                lens=lens.id,
            )
        )
    return found


def main() -> None:
    """Answer one request."""
    try:
        answer: dict[str, Any] = {
            "explanations": [item.model_dump(mode="json") for item in explain(json.load(sys.stdin))]
        }
    except WonderError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
