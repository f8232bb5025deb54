"""A target that has read the stories, and its activations on stories of two sides; the target is kept for reruns."""

import hashlib
import inspect
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import LlamaForCausalLM

from lens_training.batch import Batch, Statistics
from lens_training.build import embedding_scale, trained_copy
from lens_training.models.target import TargetModel
from lens_training.stories import target as training
from lens_training.stories import world
from lens_training.stories.files import save_target
from lens_training.stories.target import BOS, MARK, PAD, UNKNOWN, Words, train_target
from lens_training.stories.world import OPENING_WORDS, Story
from lens_training.system import LensSystem
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

# Shape suffixes: N stories, S tokens of the longest.

CACHE = Path(__file__).parent.parent / ".wonder" / "bench-lens"
LAYER = 2
"""The newest block but one: what is read there still has to be turned into a next word."""
LENGTH = 8
SPECIAL = (PAD, BOS, MARK, UNKNOWN)


@dataclass(frozen=True)
class Place:
    """What lenses are trained and judged on."""

    words: Words
    target: TargetModel
    train: Batch
    test: Batch
    """One position of each story, and no story of `train`."""
    statistics: Statistics
    about: dict[str, list[dict[str, str]]]
    """What each row's story is about, per side."""

    def lens(self, seed: int) -> LensSystem:
        """An untrained lens: two copies of the target."""
        torch.manual_seed(seed)
        mean_D, model = self.statistics.mean_D, self.target.model
        scale = embedding_scale(self.target, self.statistics)
        decoder = Decoder(trained_copy(model), mean_D, scale, left=[BOS], right=[], forbidden=SPECIAL)
        encoder = Encoder(trained_copy(model), LAYER, left=[BOS])
        return LensSystem(self.target, decoder, encoder, self.statistics, length=LENGTH, neutral=BOS)


def prepare(seed: int, *, steps: int, train: int, test: int) -> Place:
    """Train a target, or take the one that was kept, and read it.

    Args:
        seed: Of its weights, its stories, and the stories it is read on.
        steps: Of its training.
        train: Stories that lenses learn from.
        test: Stories that they are judged on.
    """
    words = Words()
    target = TargetModel(_target(seed, steps), LAYER)
    rng = random.Random(1_000_003 + seed)
    sides = {"train": [world.story(rng) for _ in range(train)], "test": [world.story(rng) for _ in range(test)]}
    batches = {side: read(target, words, found, rng) for side, found in sides.items()}
    statistics = Statistics.of(batches["train"].activation_BD)
    about = {side: [story.about for story in found] for side, found in sides.items()}
    return Place(words, target, batches["train"], batches["test"], statistics, about)


def read(target: TargetModel, words: Words, found: list[Story], rng: random.Random) -> Batch:
    """One activation of each story, at any word after the opening and before the last."""
    rows = [words.ids(story) for story in found]
    ids_NS = torch.stack([pad(torch.tensor(row), (0, max(map(len, rows)) - len(row)), value=PAD) for row in rows])
    pos_N = torch.tensor([rng.randint(OPENING_WORDS + 2, len(row) - 2) for row in rows])
    states: list[Tensor] = []
    for first in range(0, len(rows), 256):
        states.append(target.capture(ids_NS[first : first + 256], pos_N[first : first + 256]).activation_BD)
    return Batch(torch.cat(states), ids_NS, pos_N, torch.arange(len(rows)))


def _target(seed: int, steps: int) -> LlamaForCausalLM:
    source = "".join(map(inspect.getsource, (world, training)))
    name = hashlib.sha256(f"{source}{seed} {steps} {torch.__version__}".encode()).hexdigest()[:16]
    folder = CACHE / f"target-{name}"
    if not (folder / "tokenizer.json").exists():  # which is written last
        save_target(train_target(steps=steps, seed=seed), folder)
    return LlamaForCausalLM.from_pretrained(folder)
