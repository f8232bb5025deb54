"""`wonder-gpu-worker`: one model, one task queue, until a signal comes or the device breaks."""

import argparse
import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path

from wonder import entry
from wonder.connect import connect
from wonder.errors import DeviceLost, SettingNotSupported
from wonder.names import EMBEDDED_MODEL, gpu_queue
from wonder.plugin import WonderPlugin
from wonder.trace.samples import Equivalence
from wonder.trace.store import open_store, try_out
from wonder.worker import runtime, serve

SMALL_MODEL = 20_000_000
"""Parameters below which several CPU threads cost more in waiting for each other than they save."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="wonder-gpu-worker", description=__doc__)
    parser.add_argument("--model", default=EMBEDDED_MODEL, help="name or folder of a causal language model")
    parser.add_argument("--revision", help="revision of a model that is named")
    parser.add_argument("--dtype", help="float32, bfloat16, float16; default: as stored")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 …; default: the first GPU, else the CPU")
    parser.add_argument("--device-map", help="handed to transformers: auto, or a JSON object")
    parser.add_argument("--quantization", choices=["8bit", "4bit", "int8"], help="by bitsandbytes, or torchao")
    parser.add_argument("--attention", metavar="NAME", help="sdpa, eager …; default: what the model chooses")
    parser.add_argument(
        "--compile",
        nargs="?",
        const=True,
        default=False,
        metavar="BACKEND",
        help="give what nobody watches to torch.compile; default backend: inductor",
    )
    parser.add_argument("--bundles", type=Path, help="folder of probe bundles for this model")
    parser.add_argument("--compressors", type=Path, help="folder of compressor bundles for this model")
    parser.add_argument(
        "--lens",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="a lens of this model, for ThoughtCapture(explain=…): a bundle, a folder of them, a registry (all that is "
        "in force there for this model), or REGISTRY/NAME; repeatable",
    )
    parser.add_argument(
        "--equivalence",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="when two sampled answers count as the same; an action names it (ThoughtCapture(equivalence=NAME))",
    )
    parser.add_argument("--calibrations", type=Path, help="folder of calibrations, as `wonder calibrate` keeps it")
    parser.add_argument("--artifacts", default=".wonder/artifacts", help="folder, or s3://bucket/prefix")
    parser.add_argument("--max-batch", type=int, default=8, help="requests that share a forward pass at most")
    parser.add_argument("--threads", type=int, help="CPU threads for the model")
    parser.add_argument("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else localhost:7233")
    parser.add_argument("--namespace", help="default: TEMPORAL_NAMESPACE, else default")
    parser.add_argument("--task-queue", help="default: wonder-gpu.<model>")
    parser.add_argument("--drain", type=float, default=30.0, metavar="SECONDS", help="grace after SIGTERM")
    return parser.parse_args(argv)


def equivalences(named: list[str]) -> dict[str, Equivalence]:
    """The functions of `NAME=MODULE:FUNCTION`, by name.

    Raises:
        SettingNotSupported: One cannot be found.
    """
    found: dict[str, Equivalence] = {}
    for item in named:
        name, _, where = item.partition("=")
        module, _, function = where.partition(":")
        try:
            found[name] = getattr(import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingNotSupported(
                f"--equivalence {item!r}: {error}; write NAME=MODULE:FUNCTION, the function takes two answers and says "
                "whether they mean the same"
            ) from error
    return found


def device_map(text: str | None) -> str | dict[str, int | str] | None:
    """`auto` and the like as they are, a JSON object parsed.

    Raises:
        SettingNotSupported: It begins like JSON and is not.
    """
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        found: dict[str, int | str] = json.loads(text)
    except ValueError as error:
        raise SettingNotSupported(f"--device-map {text!r} is no JSON object: {error}") from None
    return found


async def work(options: argparse.Namespace) -> int:
    """Try the store, load the model, then poll.

    Raises:
        DeviceLost: The device broke; every request in flight has failed retryably by then.
    """
    store = open_store(options.artifacts)
    try_out(store)
    import torch  # noqa: PLC0415 - takes seconds, and --help must not

    from wonder.engine import TraceEngine  # noqa: PLC0415

    engine = TraceEngine.load(
        options.model,
        revision=options.revision,
        dtype=options.dtype,
        device=options.device,
        device_map=device_map(options.device_map),
        quantization=options.quantization,
        attn_implementation=options.attention,
        compile=options.compile,
        bundles=options.bundles,
        compressors=options.compressors,
        lenses=options.lens,
        equivalences=equivalences(options.equivalence),
        store=store,
    )
    if options.threads:
        torch.set_num_threads(options.threads)
    elif engine.info.device == "cpu" and engine.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    plugin = WonderPlugin(
        roles=["gpu"],
        engine=lambda: engine,
        model=options.model,
        max_batch=options.max_batch,
        calibrations=options.calibrations,
    )
    lost: list[DeviceLost] = []
    ends, loop = asyncio.Event(), asyncio.get_running_loop()

    def leave(error: DeviceLost) -> None:
        lost.append(error)
        loop.call_soon_threadsafe(ends.set)

    engine.when_lost(leave)
    client = await connect(options.address, namespace=options.namespace, plugins=[plugin], runtime=runtime())
    await serve(
        client,
        task_queue=options.task_queue or gpu_queue(options.model),
        max_concurrent_activities=2 * options.max_batch,
        drain_s=options.drain,
        ends=ends,
    )
    if lost:
        raise lost[0]
    return 0


def main() -> None:
    """Entry point of the console script."""
    options = arguments(sys.argv[1:])
    entry.log_to_stderr()
    entry.run(lambda: work(options))


if __name__ == "__main__":
    main()
