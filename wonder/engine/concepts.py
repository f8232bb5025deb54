"""The probe bundles of one loaded model: found by name, checked to fit, read on pooled states."""

import difflib
import math
from pathlib import Path

from torch import Tensor

from wonder.engine.compress import CompressorShelf
from wonder.engine.explain import LensShelf
from wonder.errors import ProbeMismatch, UnknownProbe
from wonder.probes.bundle import ProbeBundle, load_bundle
from wonder.probes.manifest import MANIFEST_FILE

# Shape suffixes: D d_model.


class ProbeShelf:
    """The bundles in the sub-folders of one folder; each is loaded when it is first asked for."""

    def __init__(
        self,
        folder: Path | None,
        fingerprint: str,
        d_model: int,
        n_layers: int,
        compressors: Path | None = None,
        lenses: LensShelf | None = None,
    ) -> None:
        self.compressors = CompressorShelf(compressors, fingerprint, d_model, n_layers)
        """The compressors of the same model, which have a folder of their own."""
        self.lenses = lenses or LensShelf()
        """The lenses of the same model."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._d_model = d_model
        self._n_layers = n_layers
        self._loaded: dict[str, ProbeBundle] = {}

    @property
    def names(self) -> list[str]:
        """Concepts that can be asked for."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.parent.name for path in self._folder.glob(f"*/{MANIFEST_FILE}"))

    def get(self, name: str) -> ProbeBundle:
        """The bundle of a concept.

        Raises:
            UnknownProbe: There is none of that name.
            ProbeMismatch: It belongs to another model.
            CorruptBundle: Its files are damaged.
        """
        if name not in self._loaded:
            names = self.names
            if name not in names or self._folder is None:
                raise UnknownProbe(self._unknown(name, names))
            bundle = load_bundle(self._folder / name)
            bundle.check_fits(self._fingerprint, self._d_model)
            layer = bundle.manifest.hook_point.layer
            if layer >= self._n_layers:
                raise ProbeMismatch(
                    f"probe {bundle.id} reads layer {layer}, this model has layers 0..{self._n_layers - 1}: "
                    "fit the probe again on this model"
                )
            self._loaded[name] = bundle
        return self._loaded[name]

    def _unknown(self, name: str, names: list[str]) -> str:
        if not names:
            where = f"the folder {self._folder} has no bundle" if self._folder else "it was loaded without any bundles"
            return f"no probe for {name!r}: {where}; fit one, or remove it from run_concept_probes"
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else "ask for one of those, or fit a probe for it"
        return f"no probe for {name!r}; this model has {', '.join(names)}: {hint}"


def read(bundle: ProbeBundle, state_D: Tensor) -> float | None:
    """Calibrated probability of the concept in a pooled state on the host; None where the state is not finite."""
    probability = float(bundle.probability(state_D.float() @ bundle.weight_D + bundle.bias))
    return min(1.0, max(0.0, probability)) if math.isfinite(probability) else None
