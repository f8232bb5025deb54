"""What a request demands of this engine: checked before anything is generated, and joined over a batch."""

from collections.abc import Sequence

from wonder.engine.concepts import ProbeShelf
from wonder.engine.recorder import ReadPlan
from wonder.engine.selfcheck import Support
from wonder.errors import SettingNotSupported
from wonder.probes.bundle import ProbeBundle
from wonder.trace.capture import ThoughtCapture
from wonder.trace.layers import middle_third, nearest_to_middle, quarter


def hidden_layers(capture: ThoughtCapture, n_layers: int) -> list[int]:
    """Layers whose states go to the artifact."""
    wanted = capture.capture_hidden_states
    if not capture.enabled or wanted is False:
        return []
    return list(range(n_layers)) if wanted is True else sorted(set(wanted))


def attention_layers(capture: ThoughtCapture, n_layers: int) -> list[int]:
    """Layers whose attention is read."""
    if not capture.reads_attention:
        return []
    if capture.attention_layers == "all":
        return list(range(n_layers))
    if capture.attention_layers == "quarter":
        layers = quarter(n_layers)
        third = middle_third(n_layers)
        if capture.compute_attention_statistics and not set(layers) & set(third):
            layers = sorted({*layers, nearest_to_middle(list(third), n_layers)})
        return layers
    return sorted(set(capture.attention_layers))


def lens_layers(capture: ThoughtCapture, n_layers: int) -> list[int]:
    """Layers that are read through the logit lens."""
    wanted = capture.logit_lens
    if not capture.enabled or wanted is False:
        return []
    return list(range(n_layers)) if wanted is True else sorted(set(wanted))


def probes_of(capture: ThoughtCapture, shelf: ProbeShelf) -> dict[str, ProbeBundle]:
    """Concept → bundle."""
    return {name: shelf.get(name) for name in capture.run_concept_probes} if capture.enabled else {}


def check(capture: ThoughtCapture, shelf: ProbeShelf, n_layers: int, *, has_store: bool) -> None:
    """Refuse what can never be delivered.

    Raises:
        SettingNotSupported: A layer that the model does not have, an artifact without a store, or a code larger than
            its basis.
        UnknownProbe: A concept without a bundle.
        ProbeMismatch, CompressorMismatch: A bundle of another model.
        UnknownLens: A lens that is not there.
    """
    if not capture.enabled:
        return
    lists = {
        "capture_hidden_states": hidden_layers(capture, n_layers),
        "attention_layers": attention_layers(capture, n_layers),
        "logit_lens": lens_layers(capture, n_layers),
    }
    for setting, layers in lists.items():
        if outside := [layer for layer in layers if layer >= n_layers]:
            raise SettingNotSupported(
                f"{setting} asks for layer {outside[0]}, this model has layers 0..{n_layers - 1}: name one of those"
            )
    reasons = []
    if hidden_layers(capture, n_layers):
        reasons.append("capture_hidden_states")
    if capture.store_in != "context":
        reasons.append(f"store_in={capture.store_in!r}")
    if reasons and not has_store:
        raise SettingNotSupported(
            f"{' and '.join(reasons)} needs an artifact store, and this engine has none: "
            "start it with a store (a folder is enough), or keep to store_in='context'"
        )
    probes_of(capture, shelf)
    shelf.compressors.check(capture)
    shelf.lenses.layers(capture)


def plan_for(captures: Sequence[ThoughtCapture], shelf: ProbeShelf, n_layers: int, support: Support) -> ReadPlan | None:
    """The union of what a batch reads; None where nothing is read."""
    live = [capture for capture in captures if capture.enabled]
    if not live:
        return None
    states = {layer for capture in live for layer in hidden_layers(capture, n_layers)}
    states |= {bundle.manifest.hook_point.layer for c in live for bundle in probes_of(c, shelf).values()}
    states |= {layer for capture in live for layer in shelf.compressors.layers(capture)}
    watched = {layer for capture in live for layer in attention_layers(capture, n_layers)}
    return ReadPlan(
        attention_layers=tuple(sorted(watched)) if support.attention is None else (),
        pairs=max([c.key_pairs_per_layer for c in live if c.capture_attention], default=0),
        state_layers=tuple(sorted(states)),
        routers=any(capture.capture_expert_routing for capture in live),
        alternatives=max(capture.top_alternatives for capture in live),
        boosted=any(capture.boosted_probability for capture in live),
        lens_layers=tuple(sorted({layer for c in live for layer in lens_layers(c, n_layers)}))
        if support.lens is None
        else (),
        heads=any(capture.compute_attention_statistics for capture in live),
        prompt_rows=any(capture.attention_rows == "all" for capture in live),
        explain_layers=tuple(sorted({layer for capture in live for layer in shelf.lenses.layers(capture)})),
    )
