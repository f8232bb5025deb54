"""A corpus of stories on disk, a random target of theirs, and the specification that joins them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from lens_training.dump import load_target
from lens_training.models.target import TargetModel
from lens_training.spec import DataSpec, parse
from lens_training.stories.files import save_target, write_stories
from lens_training.stories.target import config
from lens_training.stories.world import stories
from lens_training.tokens import TokenStore, tokenize

LAYER = 1
Specify = Callable[..., DataSpec]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, corpus and tokens that no test changes."""
    root = tmp_path_factory.mktemp("lens-data")
    torch.manual_seed(0)
    save_target(LlamaForCausalLM(config(32, 3)), root / "model")
    write_stories(stories(120, 1), root / "stories.jsonl")
    return root


@pytest.fixture(scope="session")
def specify(place: Path) -> Specify:
    """A specification with some settings of the dump or the corpus changed."""

    def made(folder: Path, corpus: dict[str, Any] | None = None, **dump: Any) -> DataSpec:
        return parse(
            DataSpec,
            {
                "folder": str(folder),
                "corpus": {
                    "source": "jsonl",
                    "path": str(place / "stories.jsonl"),
                    "tokens_per_shard": 2000,
                    **(corpus or {}),
                },
                "target": {"model": str(place / "model"), "layer": LAYER},
                "dump": {"rows_per_shard": 200, "context_length": 64, "shares": SHARES, **dump},
            },
        )

    return made


SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


@pytest.fixture(scope="session")
def tokenizer(place: Path) -> Any:
    return AutoTokenizer.from_pretrained(place / "model")


@pytest.fixture(scope="session")
def store(place: Path, specify: Specify, tokenizer: Any) -> TokenStore:
    spec = specify(place)
    tokenize(spec.corpus, tokenizer, spec.tokens)
    return TokenStore(spec.tokens)


@pytest.fixture(scope="session")
def target(place: Path, specify: Specify) -> TargetModel:
    return load_target(specify(place).target)[0]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
