"""A trainer that is killed again and again, in processes of its own: `python -m tests.unit.lens.killed FOLDER WAY`."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lens_training.run_spec import Phase, Run
from lens_training.train.loop import Trainer
from tests.unit.lens.systems import system

KILLS = 20
RUN = Run(
    phases=(
        Phase(objective="warm_start", steps=20, batch=4),
        Phase(objective="grpo", steps=50, batch=3, anchor="0.1", decoder_rate="1e-3 -> 1e-4"),
    ),
    average=0.9,
    checkpoint_every=2,
)


def trainer(folder: Path | None) -> Trainer:
    made, data = system()
    return Trainer(made, data, RUN, folder)


def attempt(folder: Path, prepare: Callable[[Trainer], None]) -> int:
    """Go on with the run in a process of its own; gives its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        made = trainer(folder)
        made.resume()
        prepare(made)
        made.train()
    except BaseException:
        os._exit(1)
    os._exit(0)


def killed(pid: int) -> bool:
    """Wait for the end; whether it was killed."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def at_random(folder: Path) -> int:
    """Kill at moments that have nothing to do with what is being done; gives how often that was in time."""
    chance, kills = random.Random(6), 0
    for _ in range(KILLS):
        read, write = os.pipe()

        def told(made: Trainer, write: int = write) -> None:
            take = made._take_step

            def noted() -> Any:
                found = take()
                os.write(write, b".")
                return found

            made._take_step = noted  # type: ignore[method-assign]

        pid = attempt(folder, told)
        os.close(write)
        began = time.monotonic()
        for _ in range(chance.randint(1, 3)):
            os.read(read, 1)
        time.sleep(chance.uniform(0, (time.monotonic() - began) / 2))
        os.kill(pid, signal.SIGKILL)
        kills += killed(pid)
        os.close(read)
    return kills


def while_publishing(folder: Path) -> int:
    """Kill before each call that changes a file while checkpoints are published: the first, the second, and so on."""
    kills = 0
    for wanted in range(1, KILLS + 1):
        count = 0

        def counted(call: Callable[..., Any], wanted: int = wanted) -> Callable[..., Any]:
            def counting(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == wanted:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counting

        def prepare(_: Trainer, counted: Callable[..., Any] = counted) -> None:
            os.fsync = counted(os.fsync)
            Path.replace = counted(Path.replace)  # type: ignore[method-assign]
            Path.rename = counted(Path.rename)  # type: ignore[method-assign]
            Path.mkdir = counted(Path.mkdir)  # type: ignore[method-assign]
            shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]

        kills += killed(attempt(folder, prepare))
    return kills


if __name__ == "__main__":
    place = Path(sys.argv[1])
    times = {"random": at_random, "publishing": while_publishing}[sys.argv[2]](place)
    assert not killed(attempt(place, lambda _: None))
    (place / "kills").write_text(str(times))
