"""Saves and loads lens bundles, and puts states into words with them."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from wonder.embedded import embedded_path
from wonder.errors import ArtifactError, CorruptBundle, LensMismatch, ModelNotFound, StoreNotUsable
from wonder.lens.adapters import ADAPTER_FILE, add, bare_copy
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder
from wonder.lens.manifest import (
    DECODER,
    ENCODER,
    LENS_FILE,
    TENSORS_FILE,
    LensManifest,
    PromptToken,
    check_files,
    file_of,
    read_manifest,
)
from wonder.lens.tokenizer import check_tokenizer
from wonder.probes.files import read_tensors
from wonder.probes.fingerprint import model_fingerprint

# Shape suffixes: P states, T tokens of a text, D d_model.

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Guess:
    """A state in words."""

    ids: list[int]
    text: str
    reconstruction: float
    """1 − ‖A − Â‖² / V; not a number where the text is read as none."""


@dataclass(frozen=True)
class ConsistencyLens:
    """A lens ready to be used, in evaluation mode."""

    manifest: LensManifest
    decoder: Decoder
    encoder: Encoder
    tokenizer: Any

    @property
    def id(self) -> str:
        """`<name>@<first 12 digits of the digest>`."""
        return self.manifest.id

    @torch.inference_mode()
    def words(self, states_PD: Tensor) -> Tensor:
        """The likeliest text of each state, (P, T)."""
        return self.decoder.rollout(self._placed(states_PD), self.manifest.prompt.length).ids_BT

    @torch.inference_mode()
    def read(self, ids_PT: Tensor) -> Tensor:
        """The state that each text stands for, (P, D), float32."""
        embed: Any = self.encoder.embed(ids_PT)
        found: Tensor = self.encoder(embed)
        return found

    @torch.inference_mode()
    def explain(self, states_PD: Tensor) -> list[Guess]:
        """Put states into words, in one decode for all of them, and see how much of each the words say.

        Args:
            states_PD: Outputs of the lens's block, unscaled; on any device, of any dtype.
        """
        if not len(states_PD):
            return []
        states_PD = self._placed(states_PD)
        ids_PT = self.words(states_PD)
        error_P = (self.read(ids_PT) - states_PD).square().sum(-1) / self.manifest.training.variance
        return [
            Guess(ids, self.text(ids), 1.0 - error)
            for ids, error in zip(ids_PT.tolist(), error_P.tolist(), strict=True)
        ]

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as words."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _placed(self, states_PD: Tensor) -> Tensor:
        return states_PD.to(self.encoder.head.weight.device, torch.float32)


def save_lens(
    folder: Path,
    manifest: LensManifest,
    decoder: Decoder,
    encoder: Encoder,
    tokenizer: Any,
    adapters: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> LensManifest:
    """Write a bundle, which appears under its name whole or not at all; files and digest are filled in.

    Args:
        folder: Must not be there, or be empty.
        manifest: Everything but files and digest.
        decoder: State to text.
        encoder: Text to state.
        tokenizer: Of the target.
        adapters: Tensors (`wonder.lens.adapters`) by folder, where decoder and encoder are adapters on the target.

    Raises:
        ArtifactError: There is something of that name; bundles never change.
        StoreNotUsable: The disk is full, or the folder cannot be written to.
    """
    with _appearing(folder) as part:
        base: Any = encoder.base
        if adapters is None:
            decoder.model.save_pretrained(part / DECODER)
            base.save_pretrained(part / ENCODER)
        else:
            for name in (DECODER, ENCODER):
                (part / name).mkdir()
                held = {key: tensor.contiguous().cpu() for key, tensor in adapters[name].items()}
                save_file(held, part / name / ADAPTER_FILE)
        tokenizer.save_pretrained(part / DECODER)
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in _own(decoder, encoder).items()},
            part / TENSORS_FILE,
        )
        paths = sorted(path for path in part.rglob("*") if path.is_file())
        manifest = manifest.model_copy(update={"weights": "full" if adapters is None else "adapters"})
        sealed = manifest.sealed([file_of(part, path) for path in paths])
        (part / LENS_FILE).write_text(sealed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return sealed


def load_lens(
    folder: Path, device: torch.device | str = "cpu", target: PreTrainedModel | None = None
) -> ConsistencyLens:
    """Load a bundle; every byte is checked first, and nothing is unpickled.

    Args:
        folder: Of the bundle.
        device: Where it goes; a lens of adapters goes where the target is.
        target: The model that the lens was trained on, which a lens of adapters shares the weights of.

    Raises:
        LensMismatch: It is a lens of adapters, and the target is not given or another model.
        CorruptBundle: A file is missing, changed or unasked for, or does not hold what the manifest says.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    tensors = read_tensors(folder / TENSORS_FILE, _sha256(folder, manifest, TENSORS_FILE))
    tokenizer = _tokenizer(folder, manifest)
    prompt, width = manifest.prompt, manifest.target.d_model
    if manifest.weights == "full":
        spoken, read = _model(folder / DECODER, AutoModelForCausalLM), _model(folder / ENCODER, AutoModel)
    else:
        spoken, read, device = _adapted(folder, manifest, target)
    for part, model in ((DECODER, spoken), (ENCODER, read)):
        if (found := int(model.config.get_text_config(decoder=True).hidden_size)) != width:
            raise CorruptBundle(f"{folder / part} has width {found}, its manifest says {width}: export it again")
    mean_D = _tensor(folder, tensors, "mean", (width,))
    decoder = Decoder(
        spoken,
        mean_D,
        prompt.scale,
        left=_ids(prompt.left),
        right=_ids(prompt.right),
        forbidden=_ids(prompt.forbidden),
        injection=prompt.injection,
        written_blocks=prompt.written_blocks,
    )
    encoder = Encoder(read, manifest.target.layer, left=_ids(prompt.encoder_left))
    for name, parameter in _own(decoder, encoder).items():
        with torch.no_grad():
            parameter.copy_(_tensor(folder, tensors, name, tuple(parameter.shape)))
    for module in (decoder, encoder):
        module.train(False).to(device)
        if manifest.weights == "full":  # else most of the parameters are the target's
            module.requires_grad_(False)
    return ConsistencyLens(manifest, decoder, encoder, tokenizer)


def load_target(name: str, revision: str = "") -> PreTrainedModel:
    """The model that a lens was trained on, as it is stored, on the CPU.

    Raises:
        ModelNotFound: It cannot be had.
    """
    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            embedded_path(name) or name, dtype="auto", **({"revision": revision} if revision else {})
        )
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelNotFound(f"{name!r}, which the lens's adapters belong to, cannot be loaded ({said})") from error
    model: PreTrainedModel = found.eval()
    return model


def _adapted(
    folder: Path, manifest: LensManifest, target: PreTrainedModel | None
) -> tuple[PreTrainedModel, PreTrainedModel, torch.device]:
    """Two models that share the target's weights, each with its own adapters, and where they are."""
    if target is None or model_fingerprint(target) != manifest.target.fingerprint:
        raise LensMismatch(
            f"lens {manifest.id} is made of adapters on {manifest.target.model!r} "
            f"({manifest.target.fingerprint[:12]}): load it together with that very model"
        )
    models = []
    for name in (DECODER, ENCODER):
        path = folder / name / ADAPTER_FILE
        made = bare_copy(target)
        add(made, read_tensors(path, _sha256(folder, manifest, f"{name}/{ADAPTER_FILE}")), path)
        models.append(made)
    return models[0], models[1], next(target.parameters()).device


def _own(decoder: Decoder, encoder: Encoder) -> dict[str, Tensor]:
    """What belongs to neither of the two folders."""
    maps = {f"maps.{name}": tensor for name, tensor in decoder.maps.state_dict().items()}
    head = {f"head.{name}": tensor for name, tensor in encoder.head.state_dict().items()}
    mean: Any = decoder.mean_D
    return {"mean": mean, **maps, **head}


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder that takes its name when all is in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(f"{folder} already holds something, and bundles never change: save to another folder")
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir(parents=True)
        yield part
        for path in part.rglob("*"):
            _sync(path)
        _sync(part)
        part.replace(folder)
        _sync(folder.parent)
    except OSError as error:
        why = "there is no room for it" if error.errno in FULL else error.strerror or error
        raise StoreNotUsable(
            f"{folder.name} cannot be written to {folder.parent} ({why}); nothing of it was left: make room or access, "
            "then export again"
        ) from error
    except SafetensorError as error:
        raise StoreNotUsable(f"{folder.name} cannot be written to {folder.parent} ({error}): make room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _model(folder: Path, kind: Any) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loaded: Any = kind.from_pretrained(
            folder,
            config=config,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, report = loaded
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise CorruptBundle(f"{folder} cannot be loaded ({said}): export it again") from error
    if absent := sorted(report["missing_keys"]):
        # transformers fills them with random numbers and goes on.
        raise CorruptBundle(f"{folder} lacks {len(absent)} weights (first: {absent[0]}): export it again")
    found: PreTrainedModel = model
    return found


def _tokenizer(folder: Path, manifest: LensManifest) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / DECODER, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
        raise CorruptBundle(f"{folder / DECODER} has no tokenizer that loads ({said}): export it again") from error
    check_tokenizer(manifest, tokenizer)
    return tokenizer


def _tensor(folder: Path, tensors: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    found = tensors.get(name)
    if found is None or tuple(found.shape) != shape or not found.isfinite().all():
        have = "nothing" if found is None else tuple(found.shape)
        raise CorruptBundle(
            f"{folder / TENSORS_FILE} has {have} for {name!r}, wanted finite numbers of shape {shape}: export it again"
        )
    return found


def _sha256(folder: Path, manifest: LensManifest, name: str) -> str:
    for file in manifest.files:
        if file.name == name:
            return file.sha256
    raise CorruptBundle(f"{folder / LENS_FILE} does not name {name}: export it again")


def _ids(tokens: Sequence[PromptToken]) -> list[int]:
    return [token.id for token in tokens]
