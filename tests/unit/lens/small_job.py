"""A small trainer: counts its starts, goes on from its checkpoint, writes one when told to stop."""

import os
import signal
import sys
import time
from pathlib import Path

SAFETY_S = 120
asked: list[int] = []


def main(folder: Path, mode: str) -> None:
    rank = os.environ.get("RANK", "0")
    checkpoint = folder / f"checkpoint-{rank}"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else lambda *_: asked.append(1))
    with (folder / "starts").open("a") as file:
        file.write(f"{rank} {os.getpid()} {step}\n")
    say(f"begun at {step}")
    if mode == "fails":
        raise ValueError("the corpus is gone")
    if mode == "ends":
        say(f"done in {Path.cwd().name} {os.environ['COLOUR']}")
        return
    deadline = time.monotonic() + SAFETY_S
    while not asked and not (folder / "finish").exists() and time.monotonic() < deadline:
        step += 1
        (folder / f"step-{rank}").write_text(str(step))
        time.sleep(0.01)
    (folder / f"new-{rank}").write_text(str(step))
    (folder / f"new-{rank}").replace(checkpoint)
    say(f"saved {step}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
