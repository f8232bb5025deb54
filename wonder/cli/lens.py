"""`wonder lens`: the registry of lenses, and what a lens says of the states of a run."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from temporalio.client import Client

from wonder.cli import lens_plan, lens_text, lens_training
from wonder.errors import EngineFailed, RequestError, WonderError, by_name
from wonder.history.reading import context_of
from wonder.lens.gate import Bars
from wonder.lens.manifest import LensManifest
from wonder.lens.registry import CURRENT, LensRegistry, find_bundles
from wonder.trace.explanation import Explanation
from wonder.trace.schema import AgentMessage, ThoughtTrace

REGISTRY: Final = Path(".wonder/lenses")
ARTIFACTS: Final = ".wonder/artifacts"
STORED: Final = "hidden.layers"
"""In an artifact that holds states."""
STOP: Final = 600.0
"""Seconds after which putting states into words is given up."""


class _Target(argparse.Action):
    """A file needs no server; anything else is the id of a workflow."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature of an action
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002 - as above
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.needs_client = not Path(str(values)).is_file()


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `lens` and what it can do."""
    lens = commands.add_parser(
        "lens",
        help="lenses that put states into words: plan, train, status, list, register, promote, explain …",
        description="Exit codes: 0 done, 2 wrong use, 3 somebody else moved the alias meanwhile, 4 not good enough to "
        "be promoted, 5 the server does not answer; anything else 1.",
    )
    verbs = lens.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, help: str, handler: Any) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, parents=[server])
        parser.add_argument("--registry", type=Path, default=REGISTRY, metavar="FOLDER", help=f"default: {REGISTRY}")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(handler=handler, needs_client=False)
        return parser

    verb("list", "what is registered, and what is in force", run_list)
    show = verb("show", "one version: what it fits, what it is worth, what it was trained on", run_show)
    show.add_argument("lens", help="NAME, NAME@VERSION, or the folder of a bundle")
    register = verb("register", "keep a bundle as a version; it is not in force yet", run_register)
    register.add_argument("folder", type=Path, help="of a bundle")
    promote = verb("promote", "let an alias point to a version, if it is good enough", run_promote)
    promote.add_argument("lens", help="NAME@VERSION; the beginning of the digest is enough")
    promote.add_argument("--alias", default=CURRENT, help=f"default: {CURRENT}, which workers load")
    promote.add_argument("--minimum-fve", type=float, metavar="SHARE", help="lower bound of variance explained")
    promote.add_argument("--minimum-kl-recovered", type=float, metavar="SHARE", help="lower bound of KL recovered")
    promote.add_argument(
        "--do-not-compare", action="store_true", help="with the lens in force, such as one measured on other states"
    )
    explain = verb("explain", "what a lens says of the states of a run", run_explain)
    explain.add_argument("target", action=_Target, help="id of a workflow, or a file with a trace or a message (JSON)")
    explain.add_argument("--run-id", help="an earlier run of that id")
    explain.add_argument("--action", help="only of this action")
    explain.add_argument(
        "--lens",
        type=Path,
        metavar="PATH",
        help="put stored states (capture_hidden_states) into words with this lens: a bundle, a registry, REGISTRY/NAME",
    )
    explain.add_argument("--artifacts", default=ARTIFACTS, help=f"where states are stored; default: {ARTIFACTS}")
    lens_training.add_verbs(verbs, server)
    lens_plan.add_verb(verbs)


async def run_list(args: argparse.Namespace) -> int:
    """Every version of every lens."""
    registry = LensRegistry(args.registry)
    entries = registry.entries()
    found = [manifest for name in registry.names() for manifest in registry.versions(name)]
    if args.json:
        rows = [
            {
                "id": manifest.id,
                "digest": manifest.digest,
                "target": manifest.target.model_dump(mode="json"),
                "metrics": manifest.metrics.model_dump(mode="json"),
                "in_force": any(entry.version == manifest.digest for entry in entries),
            }
            for manifest in found
        ]
        _print_json(rows)
    else:
        _print(lens_text.table(found, entries, registry.root))
    return 0


async def run_show(args: argparse.Namespace) -> int:
    """One version."""
    registry = LensRegistry(args.registry)
    if "/" in args.lens or Path(args.lens).is_dir():
        found, entries = lens_text.manifest_at(Path(args.lens)), []
    else:
        name, _, version = args.lens.partition("@")
        found = registry.version(name, version) if version else _newest(registry, name)
        entries = registry.entries()
    if args.json:
        _print_json(found.model_dump(mode="json"))
    else:
        _print(lens_text.item(found, entries))
    return 0


async def run_register(args: argparse.Namespace) -> int:
    """Keep a bundle."""
    registry = LensRegistry(args.registry)
    found = registry.register(args.folder)
    if args.json:
        _print_json({"id": found.id, "digest": found.digest, "path": str(registry.path(found))})
    else:
        _print([f"{found.id} in {registry.path(found)}", f"wonder lens promote {found.id}"])
    return 0


async def run_promote(args: argparse.Namespace) -> int:
    """Move an alias through the gate."""
    name, _, version = args.lens.partition("@")
    if not version:
        raise RequestError(f"{args.lens!r} names no version: write NAME@VERSION, as `wonder lens list` shows it")
    bars = Bars(args.minimum_fve, args.minimum_kl_recovered, beat_current=not args.do_not_compare)
    moved = LensRegistry(args.registry).promote(name, version, bars, at=datetime.now(UTC), alias=args.alias)
    if args.json:
        _print_json(moved.model_dump(mode="json"))
    else:
        _print([f"{moved.alias} of {name} points to {name}@{moved.version[:12]}: {moved.moves[-1].because}"])
    return 0


async def run_explain(args: argparse.Namespace, client: Client | None = None) -> int:
    """The explanations of a run's traces, or what a lens says of its stored states."""
    if client is None:
        traces = [_trace_in(Path(args.target))]
    else:
        traces = (await context_of(client, args.target, args.run_id)).thought_traces
    traces = [trace for trace in traces if args.action in (None, trace.action)]
    if not traces:
        raise RequestError(f"{args.target} has no trace" + (f" of {args.action!r}" if args.action else ""))
    found = [
        (trace, trace.explanations if args.lens is None else stored(trace, args.lens, args.artifacts))
        for trace in traces
    ]
    if args.json:
        _print_json(
            [
                {"action": trace.action, "explanations": [item.model_dump(mode="json") for item in items]}
                for trace, items in found
            ]
        )
    else:
        for trace, items in found:
            _print(lens_text.explained(trace, items))
    if not any(items for _, items in found):
        raise RequestError(
            "no state of this run was put into words: ask for it with ThoughtCapture(explain=…) on a worker that has a "
            "lens, or store states (capture_hidden_states) and name a lens here (--lens)"
        )
    return 0


def stored(trace: ThoughtTrace, lens: Path, artifacts: str) -> list[Explanation]:
    """What a lens says of the stored states of a trace: of the last token of its prompt, and of its last token.

    Raises:
        LensMismatch: The lens is of another model.
        ArtifactError: The states cannot be had.
        RequestError: Nothing was stored of the lens's layer.
    """
    ref = next((ref for ref in trace.artifacts if STORED in ref.tensors), None)
    if ref is None:
        raise RequestError(
            f"the trace of {trace.action!r} has no stored states: run it with capture_hidden_states=[layer]"
        )
    bundles = find_bundles(lens, trace.model_fingerprint)
    if len(bundles) != 1:
        raise RequestError(f"{lens} holds {len(bundles)} lenses for this model: name one of them")
    request = {
        "bundle": str(bundles[0]),
        "artifacts": artifacts,
        "ref": ref.model_dump(mode="json"),
        "fingerprint": trace.model_fingerprint,
        "tokens": trace.tokens,
    }
    # A process of its own: the command line never loads torch.
    done = subprocess.run(
        [sys.executable, "-m", "wonder.lens"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=STOP,
        check=False,
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise EngineFailed(f"the lens could not be run (exit code {done.returncode}): {done.stderr[-500:]}") from None
    if "error" in answer:
        raise (by_name(answer["error"]) or WonderError)(answer["message"])
    return [Explanation.model_validate(item) for item in answer["explanations"]]


def _trace_in(path: Path) -> ThoughtTrace:
    try:
        document = json.loads(path.read_bytes())
        if isinstance(document, dict) and "thought_trace" in document:
            trace = AgentMessage.model_validate(document).thought_trace
            if trace is None:
                raise RequestError(f"{path} is a message without a trace")
            return trace
        return ThoughtTrace.model_validate(document)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
    except (ValueError, ValidationError) as error:
        raise RequestError(f"{path} holds no trace ({str(error).splitlines()[0]})") from None


def _newest(registry: LensRegistry, name: str) -> LensManifest:
    return registry.versions(name)[-1]


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
