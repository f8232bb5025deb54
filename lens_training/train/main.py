"""One segment of training as a process: `python -m lens_training.train.main SEGMENT.json`, alone or under torchrun.

How it ended is told by `status.json`, since a launcher's exit code says less.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from torch import cuda

from lens_training.build import build
from lens_training.run_spec import RunSpec
from lens_training.spec import load
from lens_training.train.loop import Trainer
from lens_training.train.progress import Status, read_status, write_status
from lens_training.train.ranks import Ranks
from lens_training.train.segment import Segment, check_lease, take_lease
from lens_training.train.trackers import mirrors
from wonder.engine.memory import is_out_of_memory
from wonder.errors import LeaseLost, OutOfMemory, SpecError, WonderError

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Wish:
    """That the segment end: told by a signal, or by the clock."""

    def __init__(self, max_seconds: float | None) -> None:
        self.signal: int | None = None
        self._end = None if max_seconds is None else time.monotonic() + max_seconds
        for number in SIGNALS:
            signal.signal(number, self._told)

    def __call__(self) -> bool:
        return self.signal is not None or (self._end is not None and time.monotonic() >= self._end)

    def _told(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.signal = number


def run_segment(segment: Segment, wish: Wish) -> bool:
    """Train until the segment's end or the wish to stop, with whoever torchrun started; gives whether the run is over.

    Raises:
        WonderError: As documented for the stage; the status says so too.
    """
    spec = load(RunSpec, Path(segment.spec))
    device = place_of(segment.device)
    ranks = Ranks.join(device or "cpu")
    is_over = _trained(segment, spec, wish, device, ranks)
    ranks.leave()  # not after an error: the others may never come
    return is_over


def place_of(device: str | None) -> str | None:
    """The device of this process: each of several on one machine has a card of its own, where there are cards.

    Raises:
        SpecError: There are fewer cards than processes.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or device == "cpu" or (device is None and not cuda.is_available()):
        return device
    if local >= cuda.device_count():
        raise SpecError(
            f"process {local} of this machine has no GPU: {cuda.device_count()} are visible; start as many "
            "processes as there are GPUs, or use device cpu"
        )
    cuda.set_device(local)
    return f"cuda:{local}"


def _trained(segment: Segment, spec: RunSpec, wish: Wish, device: str | None, ranks: Ranks) -> bool:
    folder = spec.run_folder
    if ranks.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        take_lease(folder, segment.epoch)
    ranks.wait()
    check_lease(folder, segment.epoch)
    bench = build(spec, device)
    assert spec.run is not None
    run = spec.run.model_copy(update={"accumulate": spec.run.accumulate * segment.pieces})
    trainer: Trainer | None = None
    try:
        trainer = Trainer(
            bench.system,
            bench.rows(check=ranks.rank == 0),
            run,
            folder,
            rate_scale=segment.rate_scale,
            may_publish=lambda: check_lease(folder, segment.epoch),
            epoch=segment.epoch,
            digest=spec.training_digest,
            parallel=spec.parallel,
            ranks=ranks,
            mirrors=mirrors(spec) if ranks.rank == 0 else (),
        )
        trainer.resume()
        return trainer.train(until=segment.until_step, stop=wish)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"step {trainer.step if trainer else 0} does not fit into memory ({str(error).splitlines()[0]}): cut the "
            f"batch into more pieces than run.accumulate {run.accumulate}"
        ) from error


def main(path: str) -> int:
    """Run the segment in a file; gives 0 unless it failed.

    Of several processes the one that fails says why; the others, which may be waiting for it, are ended by torchrun.
    """
    segment = load(Segment, Path(path))
    try:
        run_segment(segment, Wish(segment.max_seconds))
    except WonderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        folder = _folder(segment)
        if folder is not None and not isinstance(error, LeaseLost):  # the folder is another's
            was = read_status(folder) or Status(state="failed")
            failed = {"state": "failed", "error": type(error).__name__, "message": str(error), "epoch": segment.epoch}
            write_status(folder, was.model_copy(update=failed))
        return 1
    return 0


def _folder(segment: Segment) -> Path | None:
    try:
        return load(RunSpec, Path(segment.spec)).run_folder
    except SpecError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
