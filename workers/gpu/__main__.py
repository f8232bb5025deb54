"""`wonder-gpu-worker`: one model, one task queue, until a signal comes."""

import argparse
import sys
from pathlib import Path

from wonder import entry
from wonder.connect import connect
from wonder.names import EMBEDDED_MODEL, gpu_queue
from wonder.plugin import WonderPlugin
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
    parser.add_argument("--device-map", help="handed to transformers, for example auto")
    parser.add_argument("--quantization", choices=["8bit", "4bit"], help="through bitsandbytes")
    parser.add_argument("--bundles", type=Path, help="folder of probe bundles for this model")
    parser.add_argument("--compressors", type=Path, help="folder of compressor bundles for this model")
    parser.add_argument("--artifacts", default=".wonder/artifacts", help="folder, or s3://bucket/prefix")
    parser.add_argument("--max-batch", type=int, default=8, help="requests that share a forward pass at most")
    parser.add_argument("--threads", type=int, help="CPU threads for the model")
    parser.add_argument("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else localhost:7233")
    parser.add_argument("--namespace", help="default: TEMPORAL_NAMESPACE, else default")
    parser.add_argument("--task-queue", help="default: wonder-gpu.<model>")
    parser.add_argument("--drain", type=float, default=30.0, metavar="SECONDS", help="grace after SIGTERM")
    return parser.parse_args(argv)


async def work(options: argparse.Namespace) -> int:
    """Try the store, load the model, then poll."""
    store = open_store(options.artifacts)
    try_out(store)
    import torch  # noqa: PLC0415 - takes seconds, and --help must not

    from wonder.engine import TraceEngine  # noqa: PLC0415

    engine = TraceEngine.load(
        options.model,
        revision=options.revision,
        dtype=options.dtype,
        device=options.device,
        device_map=options.device_map,
        quantization=options.quantization,
        bundles=options.bundles,
        compressors=options.compressors,
        store=store,
    )
    if options.threads:
        torch.set_num_threads(options.threads)
    elif engine.info.device == "cpu" and engine.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    plugin = WonderPlugin(roles=["gpu"], engine=lambda: engine, model=options.model, max_batch=options.max_batch)
    client = await connect(options.address, namespace=options.namespace, plugins=[plugin], runtime=runtime())
    await serve(
        client,
        task_queue=options.task_queue or gpu_queue(options.model),
        max_concurrent_activities=2 * options.max_batch,
        drain_s=options.drain,
    )
    return 0


def main() -> None:
    """Entry point of the console script."""
    options = arguments(sys.argv[1:])
    entry.log_to_stderr()
    entry.run(lambda: work(options))


if __name__ == "__main__":
    main()
