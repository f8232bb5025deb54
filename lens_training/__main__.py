"""Lens training from the command line: `python -m lens_training <stage> CONFIG.json`, and the worker of a pool.

What runs where is composed here, so that workflow and activities need to know no launcher but its protocol.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from lens_training.artifacts import Manifest
from lens_training.evaluate.compare import Comparison, compared
from lens_training.evaluate.record import Evaluation
from lens_training.job.worker import add_arguments, work
from lens_training.launch.base import JobLauncher
from lens_training.launch.options import open_launcher
from lens_training.plan.cards import DeviceKind
from lens_training.plan.estimate import RunPlan, estimate
from lens_training.plan.text import text_of
from lens_training.rates import Ticker
from lens_training.run_spec import LaunchSpec, RunSpec
from lens_training.spec import load
from lens_training.train.progress import Status, read_status
from lens_training.train.segment import Segment, next_epoch
from wonder import entry
from wonder.errors import (
    ArtifactError,
    DefinitionError,
    DeviceLost,
    ModelError,
    OutOfMemory,
    RequestError,
    SetupError,
    SpecError,
    StoreNotUsable,
    WonderError,
)
from wonder.lens.manifest import LensManifest
from wonder.lens.registry import InForce

EXIT: Final[tuple[tuple[type[WonderError], int], ...]] = (
    (DefinitionError, 2),
    (RequestError, 2),
    (StoreNotUsable, 4),
    (ArtifactError, 3),
    (SetupError, 5),
    (DeviceLost, 6),
    (OutOfMemory, 7),
    (ModelError, 8),
    (WonderError, 1),
)
"""The first class that an error is of gives the exit code: 2 correct the input, 3 make the files anew, 4 make room,
5 install or start something, 6 another device, 7 smaller passes, 8 the model."""
INTERRUPTED: Final = 130
NO_ROOM: Final = 7
"""As of `OutOfMemory`: what was planned does not fit."""

Found = Manifest | Status | Evaluation | Comparison | LensManifest | InForce | RunPlan
"""What a stage tells of what it made."""
Handler = Callable[[argparse.Namespace], Found]


def tokens(arguments: argparse.Namespace) -> Manifest:
    """Texts to token shards."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - seconds, which a wrong call should not wait for

    from lens_training.tokens import tokenize  # noqa: PLC0415 - as above
    from wonder.embedded import embedded_path  # noqa: PLC0415 - as above

    spec = load(RunSpec, arguments.config)
    source = embedded_path(spec.tokenizer) or spec.tokenizer
    revision = {"revision": spec.target.revision} if spec.target.revision and not spec.corpus.tokenizer else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **revision)
    except (OSError, ValueError, KeyError) as error:
        raise SpecError(
            f"{spec.tokenizer} has no tokenizer ({str(error).splitlines()[0]}): name a folder or model"
        ) from None
    return tokenize(spec.corpus, tokenizer, spec.tokens, _ticker(arguments, "tokens", "bytes"))


def dump(arguments: argparse.Namespace) -> Manifest:
    """Activations of one slice; of all, they are merged at once."""
    from lens_training.activations import merge  # noqa: PLC0415 - as above
    from lens_training.dump import check_tokenizer, load_target  # noqa: PLC0415 - as above
    from lens_training.dump import dump as fill  # noqa: PLC0415 - as above
    from lens_training.tokens import TokenStore  # noqa: PLC0415 - as above

    spec, part = load(RunSpec, arguments.config), _part(arguments.slice)
    store = TokenStore(spec.tokens)
    target, tokenizer = load_target(spec.target, arguments.device)
    check_tokenizer(store, target, tokenizer)
    ticker = _ticker(arguments, "dump" if part[1] == 1 else f"dump {arguments.slice}", "rows")
    plan = fill(store, target, spec.dump, spec.target, arguments.out or spec.activations, part, ticker)
    return merge(arguments.out or spec.activations) if part[1] == 1 else plan


def merge(arguments: argparse.Namespace) -> Manifest:
    """The slices of a dump to one."""
    from lens_training.activations import merge as merged  # noqa: PLC0415 - as above

    return merged(load(RunSpec, arguments.config).activations, arguments.source)


def train(arguments: argparse.Namespace) -> Status:
    """Train in this process, from the newest checkpoint on; several processes: torchrun -m lens_training.train.main."""
    from lens_training.train.main import Wish, run_segment  # noqa: PLC0415 - as above

    folder = load(RunSpec, arguments.config).run_folder
    segment = Segment(
        spec=str(arguments.config),
        epoch=next_epoch(folder),
        until_step=arguments.until,
        max_seconds=arguments.max_seconds,
        device=arguments.device,
    )
    run_segment(segment, Wish(segment.max_seconds))
    found = read_status(folder)
    assert found is not None
    return found


def evaluate(arguments: argparse.Namespace) -> Evaluation:
    """Judge the newest checkpoint beside its controls: evaluation.json, and report.html to read."""
    from lens_training.evaluate.judge import evaluate as judge  # noqa: PLC0415 - as above

    spec = load(RunSpec, arguments.config)
    if arguments.train_control is not None:
        wanted = {"control_steps": arguments.train_control}
        spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update=wanted)})
    return judge(spec, arguments.device)


def compare(arguments: argparse.Namespace) -> Comparison:
    """Put evaluated runs side by side on one page."""
    return compared([load(RunSpec, path) for path in [arguments.config, *arguments.configs]], arguments.out)


def export(arguments: argparse.Namespace) -> LensManifest:
    """Write the bundle of the newest checkpoint, with the figures of its evaluation."""
    from lens_training.release import export_run  # noqa: PLC0415 - as above

    return export_run(load(RunSpec, arguments.config), arguments.device)


def register(arguments: argparse.Namespace) -> InForce:
    """Keep the bundle in its registry, and put it in force if it passes the gate."""
    from lens_training.release import register_run  # noqa: PLC0415 - as above

    return register_run(load(RunSpec, arguments.config))


def plan(arguments: argparse.Namespace) -> RunPlan:
    """Foresee memory, work, time and disk of a run, and whether it fits: exit code 7 if not."""
    return estimate(load(RunSpec, arguments.config), arguments.device_kind)


STAGES: Final[dict[str, Handler]] = {
    "plan": plan,
    "tokens": tokens,
    "dump": dump,
    "merge": merge,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "export": export,
    "register": register,
}
ON_DEVICE: Final = ("dump", "train", "evaluate", "export")


def parser() -> argparse.ArgumentParser:
    """The options of every stage."""
    made = argparse.ArgumentParser(prog="python -m lens_training", description=__doc__)
    stages = made.add_subparsers(dest="stage", required=True)
    for name, handler in STAGES.items():
        stage = stages.add_parser(name, help=handler.__doc__)
        stage.add_argument("config", type=Path, help="a JSON file with folder, corpus, target and dump")
        stage.add_argument("--json", action="store_true", help="progress and result as lines of JSON")
        if name == "plan":
            stage.add_argument("--device-kind", choices=get_args(DeviceKind), help="default: as launch says")
        if name == "dump":
            stage.add_argument("--slice", default="0/1", help="which part of the shards, such as 0/8 to 7/8")
            stage.add_argument("--out", type=Path, help="a folder of this slice's own, for `merge --source`")
        if name in ON_DEVICE:
            stage.add_argument("--device", help="cpu, cuda, cuda:1; default: where the model is loaded")
        if name == "train":
            stage.add_argument("--until", type=int, help="step at which to stop, with a checkpoint")
            stage.add_argument("--max-seconds", type=float, help="stop with a checkpoint after so long")
        if name == "evaluate":
            stage.add_argument("--train-control", type=int, help="train encoders as controls for so many steps")
        if name == "compare":
            stage.add_argument("configs", type=Path, nargs="*", help="of the other runs")
            stage.add_argument("--out", type=Path, default=Path("compare.html"), help="the page")
        if name == "merge":
            stage.add_argument("--source", type=Path, action="append", default=[], help="another folder with shards")
    add_arguments(stages.add_parser("worker", help="run the jobs of a pool for `wonder lens train`, until Ctrl-C"))
    return made


def choose(arguments: argparse.Namespace) -> Callable[[LaunchSpec], JobLauncher]:
    """The launcher of each kind, as this worker is set up."""

    def found(launch: LaunchSpec) -> JobLauncher:
        return open_launcher(launch.kind, launch.options, arguments.jobs)

    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage; the exit code tells the class of an error."""
    # The progress bars of others would stand between our lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = parser().parse_args(argv)
    if arguments.stage == "worker":
        logging.getLogger().setLevel(logging.INFO)
        entry.run(lambda: work(arguments, choose(arguments)))
    try:
        found = STAGES[arguments.stage](arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what is published stays, and the same command goes on from there\n")
        return INTERRUPTED
    except WonderError as error:
        code = next(code for kind, code in EXIT if isinstance(error, kind))
        if arguments.json:
            sys.stderr.write(json.dumps({"error": type(error).__name__, "message": str(error), "exit": code}) + "\n")
        else:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return code
    sys.stdout.write(_told(found, as_json=arguments.json) + "\n")
    return NO_ROOM if isinstance(found, RunPlan) and found.problem else 0


def _told(found: Found, *, as_json: bool) -> str:
    summary: dict[str, Any]
    if isinstance(found, RunPlan):
        return json.dumps(found.summary()) if as_json else text_of(found)
    if isinstance(found, Status):
        summary = found.model_dump(exclude_defaults=True)
    elif isinstance(found, Evaluation | Comparison):
        summary = found.summary()
    elif isinstance(found, LensManifest):
        summary = {"kind": found.kind, "id": found.id, "digest": found.digest, "fve": str(found.metrics.fve.value)}
    elif isinstance(found, InForce):
        summary = {"name": found.name, "alias": found.alias, "version": found.version, "why": found.moves[-1].because}
    else:
        summary = {"kind": found.kind, "digest": found.digest()}
    for name in ("documents", "tokens", "rows", "variance"):
        if (value := getattr(found, name, None)) is not None:
            summary[name] = value
    if as_json:
        return json.dumps(summary)
    return "\n".join(f"{name:<10} {value}" for name, value in summary.items())


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/([1-9]\d*)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise SpecError(f"slice {text!r}: write number/count, such as 0/8, the number from 0 to count − 1")
    return int(match[1]), int(match[2])


def _ticker(arguments: argparse.Namespace, stage: str, unit: str) -> Ticker:
    return Ticker(stage, unit, as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
