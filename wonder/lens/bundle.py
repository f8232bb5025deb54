"""Saves and loads lens bundles, and puts states into words with them."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from wonder.errors import ArtifactError, CorruptBundle, StoreNotUsable
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


def save_lens(folder: Path, manifest: LensManifest, decoder: Decoder, encoder: Encoder, tokenizer: Any) -> LensManifest:
    """Write a bundle, which appears under its name whole or not at all; files and digest are filled in.

    Raises:
        ArtifactError: There is something of that name; bundles never change.
        StoreNotUsable: The disk is full, or the folder cannot be written to.
    """
    with _appearing(folder) as part:
        decoder.model.save_pretrained(part / DECODER)
        tokenizer.save_pretrained(part / DECODER)
        base: Any = encoder.base
        base.save_pretrained(part / ENCODER)
        save_file(
            {name: tensor.detach().contiguous().cpu() for name, tensor in _own(decoder, encoder).items()},
            part / TENSORS_FILE,
        )
        paths = sorted(path for path in part.rglob("*") if path.is_file())
        sealed = manifest.sealed([file_of(part, path) for path in paths])
        (part / LENS_FILE).write_text(sealed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return sealed


def load_lens(folder: Path, device: torch.device | str = "cpu") -> ConsistencyLens:
    """Load a bundle; every byte is checked first, and nothing is unpickled.

    Raises:
        CorruptBundle: A file is missing, changed or unasked for, or does not hold what the manifest says.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    tensors = read_tensors(folder / TENSORS_FILE, _sha256(folder, manifest, TENSORS_FILE))
    tokenizer = _tokenizer(folder, manifest)
    prompt, width = manifest.prompt, manifest.target.d_model
    spoken = _model(folder / DECODER, AutoModelForCausalLM)
    read = _model(folder / ENCODER, AutoModel)
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
        module.train(False).requires_grad_(False).to(device)
    return ConsistencyLens(manifest, decoder, encoder, tokenizer)


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
