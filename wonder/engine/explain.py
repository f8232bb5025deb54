"""The lenses of one loaded model, and what they say of a request's states: guesses, each with what it is worth."""

import difflib
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wonder.engine.memory import is_out_of_memory
from wonder.engine.numbers import NOT_FINITE
from wonder.engine.recorder import BatchReadings
from wonder.errors import SettingNotSupported, UnknownLens
from wonder.lens.bundle import ConsistencyLens, Guess, load_lens
from wonder.lens.manifest import read_manifest
from wonder.lens.registry import find_bundles
from wonder.lens.tokenizer import check_tokenizer
from wonder.trace.capture import ThoughtCapture
from wonder.trace.explanation import Explain, Explanation
from wonder.trace.schema import ThoughtTrace

# Shape suffixes: B rows, N steps, P states, D d_model.

MOST_STATES: Final = 128
"""States of one decode; a single request has at most 64."""
NO_ROOM: Final = "the device had no room for the lens beside the model: ask for fewer positions"


@dataclass(frozen=True)
class LiveModel:
    """What a lens must have been trained on."""

    fingerprint: str
    d_model: int
    n_layers: int
    vocabulary: int
    tokenizer: Any
    device: torch.device
    model: PreTrainedModel


@dataclass
class _Ask:
    states_PD: Tensor
    done: list[Guess] | BaseException | None = field(default=None)


class Speaker:
    """One lens, whose decodes are shared by requests that come at the same time; any thread may call."""

    def __init__(self, lens: ConsistencyLens) -> None:
        self.lens = lens
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._waiting: list[_Ask] = []

    def explain(self, states_PD: Tensor) -> list[Guess]:
        """Put states into words, together with those of whoever waits meanwhile."""
        ask = _Ask(states_PD)
        with self._guard:
            self._waiting.append(ask)
        with self._turn:
            while ask.done is None:
                self._answer(self._next())
        if isinstance(ask.done, BaseException):
            raise ask.done
        return ask.done

    def _next(self) -> list[_Ask]:
        taken: list[_Ask] = []
        with self._guard:
            while self._waiting and (
                not taken or sum(len(ask.states_PD) for ask in [*taken, self._waiting[0]]) <= MOST_STATES
            ):
                taken.append(self._waiting.pop(0))
        return taken

    def _answer(self, asks: list[_Ask]) -> None:
        try:
            guesses = self.lens.explain(torch.cat([ask.states_PD for ask in asks]))
        except Exception as error:
            if len(asks) == 1:
                asks[0].done = error
                return
        else:
            for ask in asks:
                ask.done, guesses = guesses[: len(ask.states_PD)], guesses[len(ask.states_PD) :]
            return
        # Outside the handler, which holds the tensors of the attempt: alone, only who cannot be served fails.
        for ask in asks:
            self._answer([ask])


class LensShelf:
    """The lenses that were given for one model; all are loaded at once, so that a misfit shows at the start."""

    def __init__(self, paths: Sequence[Path] = (), live: LiveModel | None = None) -> None:
        """Load lenses.

        Args:
            paths: Of bundles, of folders of bundles, of a registry, or of one name in it.
            live: The model.

        Raises:
            LensMismatch: A bundle is of another model or tokenizer.
            UnknownLens: A path holds none for this model.
            CorruptBundle: A bundle is harmed.
            SettingNotSupported: Two bundles have one name.
        """
        self._speakers: dict[str, Speaker] = {}
        if live is None:
            return
        for path in paths:
            for folder in find_bundles(path, live.fingerprint):
                manifest = read_manifest(folder)
                manifest.check_fits(live.fingerprint, live.d_model, live.n_layers, live.vocabulary)
                check_tokenizer(manifest, live.tokenizer)
                if manifest.name in self._speakers:
                    raise SettingNotSupported(
                        f"two lenses are called {manifest.name!r}, the second in {folder}: give one of them"
                    )
                self._speakers[manifest.name] = Speaker(load_lens(folder, live.device, live.model))

    @property
    def ids(self) -> list[str]:
        """Of the lenses there are."""
        return [speaker.lens.id for _, speaker in sorted(self._speakers.items())]

    def get(self, explain: Explain) -> Speaker:
        """The lens that a request asks for.

        Raises:
            SettingNotSupported: There is none, or the request does not say which of several.
            UnknownLens: There is none of that name.
        """
        names = sorted(self._speakers)
        if not names:
            raise SettingNotSupported(
                "explain asks for a lens, and this worker has none for its model: start it with --lens FOLDER, or "
                "leave explain out"
            )
        if explain.lens is None:
            if len(names) > 1:
                raise SettingNotSupported(
                    f"explain does not say which lens, and this worker has {', '.join(names)}: name one of them "
                    "(Explain(lens=…))"
                )
            return self._speakers[names[0]]
        if explain.lens not in self._speakers:
            near = difflib.get_close_matches(explain.lens, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "ask for one of those, or give it to the worker (--lens)"
            raise UnknownLens(f"no lens {explain.lens!r}; this worker has {', '.join(names)}: {hint}")
        return self._speakers[explain.lens]

    def layers(self, capture: ThoughtCapture) -> set[int]:
        """Layers whose states are needed at every step."""
        if not capture.enabled or capture.explain is None:
            return set()
        return {self.get(capture.explain).lens.manifest.target.layer}


def explained(
    trace: ThoughtTrace, capture: ThoughtCapture, shelf: LensShelf, readings: BatchReadings | None, index: int
) -> ThoughtTrace:
    """The trace of row `index` with its explanations, where they are asked for; never fails for want of memory."""
    if not capture.enabled or capture.explain is None or readings is None:
        return trace
    began_s = time.perf_counter()
    speaker = shelf.get(capture.explain)
    manifest = speaker.lens.manifest
    positions, note = _positions(trace, capture.explain)
    states_PD = readings.states_NBD[manifest.target.layer][positions, index]
    finite_P = states_PD.isfinite().all(-1)
    if not finite_P.all():
        note = NOT_FINITE
        positions = [position for position, finite in zip(positions, finite_P.tolist(), strict=True) if finite]
        states_PD = states_PD[finite_P]
    guesses: list[Guess] = []
    try:
        guesses = speaker.explain(states_PD) if positions else []
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        note = NO_ROOM
    found = [
        Explanation(
            position=position,
            token=trace.tokens[position],
            text=guess.text,
            layer=manifest.target.layer,
            reconstruction=min(1.0, guess.reconstruction) if math.isfinite(guess.reconstruction) else None,
            fidelity=manifest.metrics.fve,
            lens=speaker.lens.id,
        )
        for position, guess in zip(positions, guesses, strict=False)
    ]
    update: dict[str, Any] = {
        "explanations": found,
        "bundles": trace.bundles | {"explanations": speaker.lens.id},
        "timings": trace.timings.model_copy(update={"explain_s": round(time.perf_counter() - began_s, 6)}),
    }
    if note:
        update["missing"] = trace.missing | {"explanations": note}
    return trace.model_copy(update=update)


def _positions(trace: ThoughtTrace, explain: Explain) -> tuple[list[int], str]:
    """Which generated tokens' states, in order, and what had to be left out."""
    count = len(trace.tokens)
    if explain.positions == "last":
        wanted = [count - 1]
    elif explain.positions == "values":
        fields = trace.field_confidences.values()
        wanted = sorted({token for value in fields for token in range(value.start, value.stop)})
        if not wanted:
            return [], trace.missing.get("field_confidences") or "the answer's values are not known"
    else:
        wanted = sorted(set(explain.positions))
    there = [position for position in wanted if 0 <= position < count]
    if beyond := len(wanted) - len(there):
        return there[: explain.max_positions], f"{beyond} of the positions lie beyond the {count} tokens of the answer"
    if len(there) > explain.max_positions:
        return there[: explain.max_positions], f"the first {explain.max_positions} of {len(there)} states"
    return there, ""
