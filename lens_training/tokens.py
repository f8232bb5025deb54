"""Pretokenised corpora: integer shards with document offsets, made in bounded memory, resumable, read through maps."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lens_training.artifacts import (
    MANIFEST,
    FileEntry,
    Manifest,
    is_whole,
    publish_manifest,
    publishing,
    read_manifest,
    sweep,
    verify,
)
from lens_training.corpus import Corpus, Cursor
from lens_training.mapped import MappedFiles
from lens_training.spec import CorpusSpec
from wonder.errors import ArtifactMissing, SpecError
from wonder.lens.tokenizer import tokenizer_digest

PROGRESS: Final = "progress.json"
BATCH_DOCUMENTS, BATCH_CHARACTERS = 256, 2**20
NARROW: Final = 65_536

OnProgress = Callable[[int, int], None]
"""Done and all, in one unit."""


class TokenShard(BaseModel):
    """Some consecutive documents."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    first_document: int
    documents: int
    first_token: int
    tokens: int


class TokenManifest(Manifest):
    """A pretokenised corpus."""

    kind: Literal["lens.tokens"] = "lens.tokens"
    spec_digest: str
    inventory: str
    """Of the files it was made from, by name and size."""
    tokenizer_digest: str
    vocabulary: int
    dtype: Literal["uint16", "uint32"]
    shards: list[TokenShard] = Field(default_factory=list)
    empty: int = 0
    """Documents without a token, left out."""
    text_sha256: str = ""
    """A chain over the documents: the same texts give the same, however they are sharded."""
    cursor: tuple[int, int] = (0, 0)
    complete: bool = False

    @property
    def documents(self) -> int:
        """That have tokens."""
        return sum(shard.documents for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Of all documents."""
        return sum(shard.tokens for shard in self.shards)


def tokenize(spec: CorpusSpec, tokenizer: Any, folder: Path, on_progress: OnProgress | None = None) -> TokenManifest:
    """Turn a corpus into token shards; goes on where a killed run stopped, and does nothing where all is done.

    Args:
        spec: Of the corpus.
        tokenizer: Of the model.
        folder: Where the shards are.
        on_progress: Told how much of the corpus was read.

    Raises:
        SpecError: The corpus cannot be read, is empty, or the folder holds another one.
        ArtifactCorrupt: The folder was changed.
        StoreNotUsable: The disk is full.
    """
    corpus = Corpus(spec)
    vocabulary = max(len(tokenizer), int(tokenizer.vocab_size))
    manifest = _begun(
        TokenManifest(
            files=[],
            spec_digest=spec.digest(),
            inventory=corpus.inventory,
            tokenizer_digest=tokenizer_digest(tokenizer),
            vocabulary=vocabulary,
            dtype="uint16" if vocabulary < NARROW else "uint32",
        ),
        folder,
    )
    if manifest.complete:
        return manifest
    shard = _Shard(manifest)
    for count, (ids, text, after) in enumerate(_tokenized(corpus, spec, tokenizer, manifest), 1):
        if on_progress is not None and count % BATCH_DOCUMENTS == 0:
            on_progress(corpus.done(after), corpus.size)
        if shard.tokens and shard.tokens + len(ids) > spec.tokens_per_shard:
            manifest = shard.publish(folder)
            shard = _Shard(manifest)
            if on_progress is not None:
                on_progress(corpus.done(Cursor(*manifest.cursor)), corpus.size)
        shard.add(ids, text, after)
    manifest = shard.publish(folder) if shard.documents or shard.empty else manifest
    if not manifest.documents:
        raise SpecError(f"{spec.path} has no document with a token: give a corpus that has text")
    manifest = manifest.model_copy(update={"complete": True})
    publish_manifest(folder, manifest)
    (folder / PROGRESS).unlink(missing_ok=True)
    if on_progress is not None:
        on_progress(corpus.size, corpus.size)
    return manifest


class TokenStore:
    """A finished pretokenised corpus, read through memory maps."""

    def __init__(self, folder: Path, *, check: bool = True, resident_bytes: int = 2**26) -> None:
        """Open it.

        Args:
            folder: Where `tokenize` wrote.
            check: Compare every byte with its digest; otherwise the sizes only.
            resident_bytes: About how much may stay in memory.

        Raises:
            ArtifactMissing: It is not finished, or a file is gone.
            ArtifactCorrupt: A file was changed.
        """
        self.folder = folder
        self.manifest = read_manifest(TokenManifest, folder)
        for entry in self.manifest.files:
            verify(folder, entry, bytes_too=check)
        self._maps = MappedFiles(resident_bytes)
        self._firsts = [shard.first_document for shard in self.manifest.shards]
        self._first_tokens = np.array([shard.first_token for shard in self.manifest.shards])
        self._table: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Documents."""
        return self.manifest.documents

    def tokens(self, shard: int) -> NDArray[Any]:
        """The tokens of a shard, as they are stored."""
        return self._maps.array(self.folder / f"tok-{shard:05d}.bin", self.manifest.dtype)

    def offsets(self, shard: int) -> NDArray[np.int64]:
        """Where its documents begin within the shard, and where the last one ends."""
        found: NDArray[np.int64] = self._documents(shard)[0]
        return found

    def content(self, shard: int) -> NDArray[np.uint64]:
        """A hash of each document's tokens; equal documents share it."""
        return self._documents(shard)[1, :-1].view(np.uint64)

    def _documents(self, shard: int) -> NDArray[np.int64]:
        if self._table is None or self._table[0] != shard:
            self._table = shard, np.load(self.folder / f"docs-{shard:05d}.npy", allow_pickle=False)
        return self._table[1]

    def document(self, number: int) -> NDArray[np.int64]:
        """The token ids of a document."""
        shard = bisect_right(self._firsts, number) - 1
        at = number - self._firsts[shard]
        first, last = self.offsets(shard)[at : at + 2]
        return self.tokens(shard)[first:last].astype(np.int64)

    def gather(self, start_N: NDArray[np.int64], last_N: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Contexts side by side, (N, width); after its last token, a row repeats it.

        Args:
            start_N: Where each begins, counted over the whole corpus.
            last_N: Offset of the last token of each, from its start.
            width: Columns.
        """
        shard_N = np.searchsorted(self._first_tokens, start_N, side="right") - 1
        at_NS = np.minimum(np.arange(width)[None], last_N[:, None])
        found = np.empty(at_NS.shape, np.int64)
        for shard in np.unique(shard_N):
            rows = np.flatnonzero(shard_N == shard)
            found[rows] = self.tokens(int(shard))[start_N[rows, None] - self._first_tokens[shard] + at_NS[rows]]
        self._maps.touched(len(start_N), width * 4)
        return found


class _Shard:
    """Documents that are collected until there are enough of them."""

    def __init__(self, manifest: TokenManifest) -> None:
        self.manifest = manifest
        self.tokens = self.empty = 0
        self._ids: list[NDArray[Any]] = []
        self._hashes: list[int] = []
        self._chain = bytes.fromhex(manifest.text_sha256)
        self._cursor = manifest.cursor

    @property
    def documents(self) -> int:
        return len(self._ids)

    def add(self, ids: NDArray[np.uint32], text: str, after: Cursor) -> None:
        self._cursor = (after.file, after.at)
        if not len(ids):
            self.empty += 1
            return
        own = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        self._chain = hashlib.sha256(self._chain + own).digest()
        self._hashes.append(int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "little"))
        self._ids.append(ids.astype(self.manifest.dtype))
        self.tokens += len(ids)

    def publish(self, folder: Path) -> TokenManifest:
        """Write the shard, then that it is there."""
        old, number = self.manifest, len(self.manifest.shards)
        files, shards = list(old.files), list(old.shards)
        if self._ids:
            with publishing(folder / f"tok-{number:05d}.bin") as part:
                for ids in self._ids:
                    part.write(ids)
            files.append(part.entry(f"tok-{number:05d}.bin"))
            files.append(self._publish_documents(folder / f"docs-{number:05d}.npy"))
            shards.append(
                TokenShard(
                    first_document=old.documents, documents=self.documents, first_token=old.tokens, tokens=self.tokens
                )
            )
        manifest = old.model_copy(
            update={
                "files": files,
                "shards": shards,
                "empty": old.empty + self.empty,
                "text_sha256": self._chain.hex(),
                "cursor": self._cursor,
            }
        )
        publish_manifest(folder, manifest, PROGRESS)
        return manifest

    def _publish_documents(self, path: Path) -> FileEntry:
        table = np.zeros((2, self.documents + 1), np.int64)
        table[0, 1:] = np.cumsum([len(ids) for ids in self._ids])
        table[1, :-1] = np.array(self._hashes, np.uint64).view(np.int64)
        header = np.lib.format.header_data_from_array_1_0(table)
        with publishing(path) as part:
            part.write(_npy_header(header))
            part.write(table)
        return part.entry(path.name)


def _npy_header(header: dict[str, Any]) -> bytes:
    text = repr(header).encode()
    padded = text + b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def _begun(fresh: TokenManifest, folder: Path) -> TokenManifest:
    """What an earlier run left of the same work; refused if it is of other work."""
    sweep(folder, ["*"])
    for name in (MANIFEST, PROGRESS):
        try:
            earlier = read_manifest(TokenManifest, folder, name)
        except ArtifactMissing:
            continue
        mine, theirs = _identity(fresh), _identity(earlier)
        if different := [key for key in mine if mine[key] != theirs[key]]:
            raise SpecError(f"{folder} holds tokens of another {' and '.join(different)}: use another folder")
        broken = [entry.name for entry in earlier.files if not is_whole(folder, entry)]
        if not broken:
            return earlier
        # From the first broken shard on nothing is known to be right, and a cursor exists for the end only.
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / PROGRESS).unlink(missing_ok=True)
        break
    return fresh


def _identity(manifest: TokenManifest) -> dict[str, str]:
    return {
        "corpus specification": manifest.spec_digest,
        "corpus content": manifest.inventory,
        "tokenizer": manifest.tokenizer_digest,
    }


def _tokenized(
    corpus: Corpus, spec: CorpusSpec, tokenizer: Any, manifest: TokenManifest
) -> Iterator[tuple[NDArray[np.uint32], str, Cursor]]:
    """Token ids, text and the cursor after each document."""
    prefix = _prefix(tokenizer) if spec.first_token else []
    texts: list[tuple[str, Cursor]] = []
    room, characters = spec.max_documents, 0
    if room is not None:
        room -= manifest.documents + manifest.empty

    def encoded() -> Iterator[tuple[NDArray[np.uint32], str, Cursor]]:
        found = tokenizer([text for text, _ in texts], add_special_tokens=False, verbose=False)["input_ids"]
        for (text, after), ids in zip(texts, found, strict=True):
            if ids and max(ids) >= manifest.vocabulary:
                raise SpecError(f"the tokenizer gives token {max(ids)} of {manifest.vocabulary}: it is broken")
            yield np.array([*prefix, *ids] if ids else [], np.uint32), text, after

    for document in corpus.documents(Cursor(*manifest.cursor)):
        if room is not None:
            if room == 0:
                break
            room -= 1
        texts.append((document.text, document.after))
        characters += len(document.text)
        if len(texts) == BATCH_DOCUMENTS or characters > BATCH_CHARACTERS:
            yield from encoded()
            texts, characters = [], 0
    if texts:
        yield from encoded()


def _prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text; what it puts after one is never wanted."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for at in range(len(whole) - len(bare) + 1):
        if whole[at : at + len(bare)] == bare:
            return list(whole[:at])
    return []
