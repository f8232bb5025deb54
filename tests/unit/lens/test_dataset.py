"""Rows come in an order that depends on seed and place alone, and reading them all takes little memory."""

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lens_training.activations import merge
from lens_training.dataset import ActivationDataset
from lens_training.dump import dump
from lens_training.mapped import MappedFiles
from lens_training.models.target import TargetModel
from lens_training.run_spec import Phase, Run
from lens_training.stories.target import BOS, MARK, PAD
from lens_training.system import LensSystem
from lens_training.tokens import TokenStore
from lens_training.train.loop import Trainer
from tests.unit.lens.conftest import LAYER, Specify
from wonder.errors import ArtifactCorrupt, SpecError
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder


@pytest.fixture(scope="module")
def folder(store: TokenStore, target: TargetModel, specify: Specify, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = specify(tmp_path_factory.mktemp("dataset"))
    dump(store, target, spec.dump, spec.target, spec.activations)
    merge(spec.activations)
    return spec.activations


def test_every_row_comes_once_an_epoch_and_each_epoch_has_its_own_order(folder: Path, store: TokenStore) -> None:
    found = ActivationDataset(folder, store)
    orders = [found.order(epoch * len(found), len(found)) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(found)))
    assert (orders[0] != orders[1]).mean() > 0.9
    assert abs(np.corrcoef(orders[0], np.arange(len(found)))[0, 1]) < 0.15
    assert (ActivationDataset(folder, store, seed=1).order(0, len(found)) != orders[0]).mean() > 0.9
    across = found.order(len(found) - 3, 6)
    assert across.tolist() == [*orders[0][-3:].tolist(), *orders[1][:3].tolist()]


def test_a_batch_holds_the_rows_of_the_files_with_their_contexts(folder: Path, store: TokenStore) -> None:
    for split in ("train", "val", "test"):
        found = ActivationDataset(folder, store, split)
        rows = [
            (shard, at)
            for shard, counts in enumerate(found.manifest.shard_rows)
            for at in range(
                sum(counts[name] for name in list(counts)[: list(counts).index(split)]),
                sum(counts[name] for name in list(counts)[: list(counts).index(split) + 1]),
            )
        ]
        numbers = found.order(0, 24)
        batch, final = found.rows(numbers), found.final(numbers)
        files = [load_file(path) for path in sorted(folder.glob("act-*.safetensors"))]
        for row, number in enumerate(numbers.tolist()):
            shard, at = rows[number]
            assert torch.equal(batch.activation_BD[row], files[shard]["A"][at].float())
            assert torch.equal(final[row], files[shard]["H"][at].float())
            document = store.document(int(batch.document_B[row]))
            pos = int(batch.pos_B[row])
            assert batch.ids_BS[row, : pos + 1].tolist() == document[: pos + 1].tolist()
            assert set(batch.ids_BS[row, pos:].tolist()) == {document[pos]}, "no token after the position is shown"


def test_the_kept_final_states_give_the_original_logits(folder: Path, store: TokenStore, target: TargetModel) -> None:
    found = ActivationDataset(folder, store, "val")
    numbers = found.order(0, 8)
    batch = found.rows(numbers)
    with torch.no_grad():
        want = target.model(input_ids=batch.ids_BS).logits[torch.arange(8), batch.pos_B]
        torch.testing.assert_close(target.logits(found.final(numbers)), want, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_parts_of_ranks_make_the_batch_of_one(folder: Path, store: TokenStore, ranks: int) -> None:
    found = ActivationDataset(folder, store)
    for step in (0, 3, 20):
        whole = found.batch(step, 32)
        parts = [found.batch(step, 32, rank, ranks) for rank in range(ranks)]
        assert torch.equal(torch.cat([part.activation_BD for part in parts]), whole.activation_BD)
        assert torch.equal(torch.cat([part.ids_BS for part in parts]), whole.ids_BS)
    with pytest.raises(SpecError, match="use a multiple of 3"):
        found.batch(0, 32, 0, 3)


def test_a_cursor_goes_on_exactly_with_another_batch_and_other_ranks(folder: Path, store: TokenStore) -> None:
    first = ActivationDataset(folder, store)
    for _ in range(5):
        first.next(32)
    state = first.state_dict()
    want = torch.cat([first.next(32).activation_BD for _ in range(2)])
    second = ActivationDataset(folder, store, check=False)
    second.load_state_dict(state)
    found = [second.next(16, rank=0) for _ in range(4)]
    assert torch.equal(torch.cat([batch.activation_BD for batch in found]), want)
    assert torch.equal(ActivationDataset(folder, store).batch(5, 32).activation_BD, want[:32])
    other = ActivationDataset(folder, store, seed=9)
    with pytest.raises(SpecError, match="of another seed"):
        other.load_state_dict(state)


def test_the_statistics_are_those_of_train(folder: Path, store: TokenStore) -> None:
    train, val = ActivationDataset(folder, store), ActivationDataset(folder, store, "val")
    rows = train.rows(np.arange(len(train))).activation_BD.double()
    for found in (train.statistics, val.statistics):
        torch.testing.assert_close(found.mean_D, rows.mean(0).float())
        assert found.variance == pytest.approx(float((rows - rows.mean(0)).square().sum(1).mean()), rel=1e-9)


def test_a_harmed_or_foreign_dump_is_not_opened(folder: Path, store: TokenStore, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "harmed")
    path = tmp_path / "harmed" / "act-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match="it was changed"):
        ActivationDataset(tmp_path / "harmed", store)
    path.write_bytes(data[:1000])
    with pytest.raises(ArtifactCorrupt, match="it was cut"):
        ActivationDataset(tmp_path / "harmed", store, check=False)


def test_reading_everything_gives_the_pages_back(tmp_path: Path) -> None:
    size = 96 * 2**20
    with (tmp_path / "large").open("wb") as file:
        for _ in range(size // 2**20):
            file.write(b"\1" * 2**20)

    def resident() -> int:
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"RssFile:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]

    def most(limit: int) -> int:
        maps, before, peak = MappedFiles(limit), resident(), 0
        table = maps.array(tmp_path / "large", np.uint8).reshape(-1, 2**16)
        for first in range(0, len(table), 16):
            assert table[first : first + 16].sum() == 16 * 2**16
            maps.touched(16, 2**16)
            peak = max(peak, resident() - before)
        maps.release()
        return peak

    assert most(2**30) > 64 * 2**20
    assert most(8 * 2**20) < 24 * 2**20


def test_a_trainer_takes_its_batches_from_it(folder: Path, store: TokenStore, target: TargetModel) -> None:
    found = ActivationDataset(folder, store)
    statistics = found.statistics
    torch.manual_seed(1)
    own = [copy.deepcopy(target.model).requires_grad_() for _ in range(2)]
    decoder = Decoder(
        own[0], statistics.mean_D, 1 / statistics.variance**0.5, left=[BOS], right=[MARK], forbidden=[PAD, MARK]
    )
    system = LensSystem(target, decoder, Encoder(own[1], LAYER, left=[BOS]), statistics, length=4)
    trainer = Trainer(system, found, Run(phases=[Phase(objective="warm_start", steps=3, batch=8)], seed=2))
    assert trainer.train()
    assert torch.equal(found.shuffled(8, found.seed, 4).activation_BD, found.batch(4, 8).activation_BD)
    assert torch.equal(found.sample(20).activation_BD, found.sample(30).activation_BD[:20])
    assert len(found.sample(10**6)) == len(found)
