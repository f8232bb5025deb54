"""The compressors of one loaded model, and the compressed state of a request."""

from pathlib import Path
from typing import Final

from wonder.compression.bundle import Compressor, load_compressor
from wonder.compression.soft_prompt import SoftPromptMap, load_soft_prompt
from wonder.engine.recorder import BatchReadings, ReadPlan
from wonder.errors import CorruptBundle, SettingNotSupported
from wonder.probes.manifest import MANIFEST_FILE
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import CompressedState

NO_BUNDLE: Final = "no compressor bundle for this model"
NOT_LEARNED: Final = "no learned compressor bundle for this model: use compression_method='pca', or train one"
METHODS: Final = ("pca", "learned")
"""Each has a sub-folder of its own."""
NO_METHOD: Final = "compression_method='none'"
SOFT_PROMPT: Final = "soft_prompt"
"""Sub-folder of the compressors that holds the map from codes to soft prompts."""


class CompressorShelf:
    """The compressors in the sub-folders of one folder, by method; each is loaded when it is first asked for."""

    def __init__(self, folder: Path | None, fingerprint: str, d_model: int, n_layers: int) -> None:
        self._folder = folder
        self._model = (fingerprint, d_model, n_layers)
        self._loaded: dict[str, Compressor] = {}
        self._soft_prompt: SoftPromptMap | None = None

    def get(self, capture: ThoughtCapture) -> Compressor | None:
        """What compresses the state of a request; None where it asks for nothing or there is no bundle.

        Raises:
            CompressorMismatch: The bundle belongs to another model.
            CorruptBundle: Its files are damaged.
        """
        method = capture.compression_method
        if not (capture.enabled and capture.compress_state) or method == "none":
            return None
        return self.of_method(method)

    def of_method(self, method: str) -> Compressor | None:
        """The compressor of a method, or None where there is no bundle.

        Raises:
            CompressorMismatch, CorruptBundle: As for `get`.
        """
        if method not in self._loaded:
            if self._folder is None or not (self._folder / method / MANIFEST_FILE).is_file():
                return None
            compressor = load_compressor(self._folder / method)
            if compressor.manifest.method != method:
                raise CorruptBundle(
                    f"{self._folder / method} holds a compressor of method {compressor.manifest.method!r}: "
                    "put it into the folder of that name"
                )
            compressor.check_fits(*self._model)
            self._loaded[method] = compressor
        return self._loaded[method]

    def soft_prompt(self) -> SoftPromptMap | None:
        """The map from codes to soft prompts, or None where there is no bundle.

        Raises:
            CompressorMismatch, CorruptBundle: As for `get`.
        """
        if self._soft_prompt is None:
            if self._folder is None or not (self._folder / SOFT_PROMPT / MANIFEST_FILE).is_file():
                return None
            found = load_soft_prompt(self._folder / SOFT_PROMPT)
            found.check_fits(*self._model[:2])
            self._soft_prompt = found
        return self._soft_prompt

    def check(self, capture: ThoughtCapture) -> None:
        """Refuse what can never be delivered.

        Raises:
            SettingNotSupported: More coordinates than its codes have.
            CompressorMismatch, CorruptBundle: As for `get`.
        """
        found = self.get(capture)
        if found is not None and capture.compression_dims > found.manifest.dims:
            raise SettingNotSupported(
                f"compression_dims is {capture.compression_dims}, and the basis {found.id} has {found.manifest.dims} "
                "coordinates: ask for at most that many"
            )

    def layers(self, capture: ThoughtCapture) -> set[int]:
        """Layers whose states are needed."""
        found = self.get(capture)
        return set() if found is None else {found.manifest.hook_point.layer}


def compress(
    capture: ThoughtCapture, shelf: CompressorShelf, readings: BatchReadings, plan: ReadPlan, index: int
) -> CompressedState | str:
    """The compressed state of row `index`, or the reason why there is none."""
    compressor = shelf.get(capture)
    if compressor is None:
        return {"none": NO_METHOD, "learned": NOT_LEARNED}.get(capture.compression_method, NO_BUNDLE)
    point = compressor.manifest.hook_point
    state_D = readings.states_WBD[point.aggregation][plan.state_layers.index(point.layer), index]
    if not state_D.isfinite().all():
        return "the model's own numbers are not finite here"
    return CompressedState(
        method=compressor.manifest.method,
        layer=point.layer,
        basis=compressor.id,
        values=compressor.apply(state_D, capture.compression_dims),
    )
