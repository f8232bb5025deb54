"""`ActivationDataset`: the rows of a dump in an order that depends on seed and place alone, with an exact cursor."""

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lens_training.activations import STATISTICS, ActivationManifest, layout, name_of, tensor
from lens_training.artifacts import read_manifest, verify
from lens_training.batch import Batch, Statistics
from lens_training.mapped import MappedFiles
from lens_training.positions import mix
from lens_training.spec import Split
from lens_training.tokens import TokenStore
from wonder.errors import ArtifactCorrupt, SpecError

# Shape suffixes: N rows, D d_model, S tokens of a context.

ROUNDS: Final = 6
"""Of the network that makes the order."""


class ActivationDataset:
    """One split of a finished dump, read through memory maps whose pages are given back."""

    def __init__(
        self,
        folder: Path,
        tokens: TokenStore,
        split: Split = "train",
        *,
        seed: int = 0,
        check: bool = True,
        dtype: torch.dtype = torch.float32,
        resident_bytes: int = 2**28,
    ) -> None:
        """Open it.

        Args:
            folder: Of the dump.
            tokens: The corpus it was made from.
            split: Which rows.
            seed: Of the order.
            check: Compare every byte with its digest; otherwise the sizes only.
            dtype: Of the activations in a batch.
            resident_bytes: About how much may stay in memory.

        Raises:
            ArtifactMissing: The dump is not merged yet, or a file is gone.
            ArtifactCorrupt: A file was cut or changed.
            SpecError: The dump is of another corpus, or the split is empty.
        """
        self.folder, self.split, self.seed = folder, split, seed
        self.manifest = read_manifest(ActivationManifest, folder)
        for entry in self.manifest.files:
            verify(folder, entry, bytes_too=check)
        if self.manifest.tokens_digest != tokens.manifest.digest():
            raise SpecError(
                f"the activations in {folder} are not of the tokens in {tokens.folder}: open the right ones"
            )
        self._tokens, self._dtype = tokens, dtype
        self._maps = MappedFiles(resident_bytes)
        self._layouts = [layout(folder / name_of(at)) for at in range(len(self.manifest.shard_rows))]
        names = list(self.manifest.shard_rows[0])
        before = names[: names.index(split)]
        self._offsets = [sum(rows[name] for name in before) for rows in self.manifest.shard_rows]
        """The split's first row in each shard."""
        self._firsts = np.cumsum([0, *(rows[split] for rows in self.manifest.shard_rows)])
        self._cursor = 0
        if not len(self):
            raise SpecError(f"the dump in {folder} has no rows for {split}: its share is 0")

    def __len__(self) -> int:
        """Rows of the split."""
        return int(self._firsts[-1])

    @property
    def statistics(self) -> Statistics:
        """Of the training rows, whatever the split."""
        return Statistics(tensor(self.folder / STATISTICS, "mean").float(), self.manifest.variance)

    @property
    def width(self) -> int:
        """Tokens of the longest context; every batch is that wide."""
        return self.manifest.longest

    def order(self, first: int, count: int) -> NDArray[np.int64]:
        """Which rows stand at consecutive places: each row once an epoch, every epoch in an order of its own.

        Args:
            first: Place, counted over all epochs.
            count: How many.
        """
        place_N = np.arange(first, first + count, dtype=np.int64)
        return _permuted(place_N % len(self), place_N // len(self), len(self), self.seed)

    def batch(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """A rank's part of the batch of a step; the parts of all ranks make the same batch, however many they are.

        Args:
            step: From 0.
            size: Rows of all ranks together.
            rank: Whose part.
            ranks: How many there are.

        Raises:
            SpecError: The batch cannot be shared evenly.
        """
        return self._part(step * size, size, rank, ranks)

    def shuffled(self, size: int, seed: int, step: int, part: tuple[int, int] | None = None) -> Batch:
        """The rows of a step in the order of another seed, as `Batch.shuffled` gives them: what a trainer asks for."""
        first, last = part or (0, size)
        place_N = np.arange(step * size + first, step * size + last, dtype=np.int64)
        return replace(self.rows(_permuted(place_N % len(self), place_N // len(self), len(self), seed)), first=first)

    def sample(self, most: int) -> Batch:
        """So many rows, or all if there are fewer, always the same ones: for evaluation."""
        return self.rows(self.order(0, min(most, len(self))))

    def next(self, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """The part of the next rows; the cursor moves by `size`, which may change from call to call."""
        found = self._part(self._cursor, size, rank, ranks)
        self._cursor += size
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where reading stands."""
        return {"rows_read": self._cursor, "seed": self.seed, "split": self.split, "manifest": self.manifest.digest()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another reader of the same rows stood.

        Raises:
            SpecError: It was of other rows, or of another order.
        """
        own = self.state_dict()
        if different := [name for name in ("seed", "split", "manifest") if state.get(name) != own[name]]:
            raise SpecError(
                f"the cursor is of another {' and '.join(different)}: resume with the data and seed of the run"
            )
        self._cursor = int(state["rows_read"])

    def rows(self, number_N: NDArray[np.int64]) -> Batch:
        """Rows by their number in the split, in this order."""
        document_N = self._read("doc", number_N)
        start_N, pos_N = self._read("start", number_N), self._read("pos", number_N).astype(np.int64)
        ids_NS = self._tokens.gather(start_N, pos_N, self.width)
        return Batch(
            self._states("A", number_N).to(self._dtype),
            torch.from_numpy(ids_NS),
            torch.from_numpy(pos_N),
            torch.from_numpy(document_N),
        )

    def final(self, number_N: NDArray[np.int64]) -> Tensor:
        """The states that the head reads at the same rows, (N, D): `target.logits` of them is the original.

        Raises:
            SpecError: The dump has none.
        """
        if not self.manifest.spec.final:
            raise SpecError(
                f"the dump in {self.folder} was made with final=false: dump with final=true, or run the target"
            )
        return self._states("H", number_N).to(self._dtype)

    def release(self) -> None:
        """Give all memory back."""
        self._maps.release()

    def _part(self, first: int, size: int, rank: int, ranks: int) -> Batch:
        if size % ranks:
            raise SpecError(f"a batch of {size} rows cannot be shared by {ranks} ranks: use a multiple of {ranks}")
        own = size // ranks
        return self.rows(self.order(first + rank * own, own))

    def _states(self, name: str, number_N: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self._read(name, number_N)).view(torch.bfloat16)

    def _read(self, name: str, number_N: NDArray[np.int64]) -> NDArray[Any]:
        shard_N = np.searchsorted(self._firsts, number_N, side="right") - 1
        found: NDArray[Any] | None = None
        for shard in np.unique(shard_N).tolist():
            here = np.flatnonzero(shard_N == shard)
            table = self._table(name, shard)
            rows = table[number_N[here] - self._firsts[shard] + self._offsets[shard]]
            if found is None:
                found = np.empty((len(number_N), *table.shape[1:]), table.dtype)
            found[here] = rows
        if found is None:
            raise SpecError("no rows were asked for")
        self._maps.touched(len(number_N), found.nbytes // len(number_N))
        return found

    def _table(self, name: str, shard: int) -> NDArray[Any]:
        place = self._layouts[shard].get(name)
        dtype = {"BF16": np.int16, "I64": np.int64, "I32": np.int32}
        if place is None:
            raise ArtifactCorrupt(f"{self.folder / name_of(shard)} has no {name}: make it anew")
        path, count = self.folder / name_of(shard), prod(place.shape)
        return self._maps.array(path, dtype[place.dtype], offset=place.offset, count=count).reshape(place.shape)


def _permuted(place_N: NDArray[np.int64], epoch_N: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of `range(count)` per epoch, without a table: a Feistel network that walks until it is inside."""
    half = max(1, -(-(count - 1).bit_length() // 2))
    low = np.uint64((1 << half) - 1)
    keys = [
        mix(epoch_N.astype(np.uint64) * np.uint64(64) + mix(np.full(1, seed, np.uint64)) + np.uint64(r))
        for r in range(ROUNDS)
    ]
    found = place_N.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> np.uint64(half), found[outside] & low
        for key in keys:
            left, right = right, left ^ (mix(right + key[outside]) & low)
        found[outside] = (left << np.uint64(half)) | right
        outside = found >= np.uint64(count)
    return found.astype(np.int64)
