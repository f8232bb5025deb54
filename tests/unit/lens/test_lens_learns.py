"""A lens really learns, from nothing, on one thread in minutes: texts say more than the words beside the activation."""

from pathlib import Path

import pytest
import torch

from benchmarks import _lens_world
from benchmarks._lens_judge import baselines, judge
from benchmarks._lens_world import Place, prepare
from benchmarks.lens import policy, straight, warm
from lens_training.run_spec import Phase, Run
from lens_training.system import LensSystem
from lens_training.train.loop import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
SEED = 11


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lens_world, "CACHE", Path(tmp_path_factory.mktemp("target")))
        return prepare(SEED, steps=800, train=20_000, test=2048)


def trained(place: Place, *phases: Phase) -> LensSystem:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lens = place.lens(SEED)
        Trainer(lens, place.train, Run(phases=phases, seed=SEED)).train()
    finally:
        torch.set_num_threads(threads)
    return lens


def test_a_readable_lens_says_what_no_neighbouring_word_does(place: Place) -> None:
    found = judge(trained(place, warm(600), policy(600)), place)
    alone = judge(trained(place, warm(600), policy(200, decoder_rate="0", anchor="0")), place, probes=False)
    assert found.fve.value >= 0.75
    assert found.kl_recovered.value >= 0.75
    assert found.fve_shuffled <= -0.3
    assert found.fve_random <= 0.05
    assert found.fve.value - alone.fve.value >= 0.03
    assert found.fve.value - baselines(place)["ridge_8"] >= 0.05
    assert found.nll - found.nll_tail <= 1.0


@pytest.mark.parametrize(("objective", "steps", "least"), [("ste_parallel", 800, 0.55), ("ste_recurrent", 500, 0.2)])
def test_straight_through_learns_from_nothing(place: Place, objective: str, steps: int, least: float) -> None:
    found = judge(trained(place, straight(objective, steps)), place, probes=False)
    assert found.fve.value >= least
    assert found.fve_shuffled <= -0.3
