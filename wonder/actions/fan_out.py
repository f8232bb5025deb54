"""`join`: run the branches of a fan-out side by side until enough of them have arrived."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from temporalio import workflow

from wonder.errors import WonderError
from wonder.routing.join import Join


@dataclass
class Joined:
    """How a join ended."""

    met: bool
    """Whether enough branches arrived."""
    arrived: list[str] = field(default_factory=list)
    """The branches that did, in the order in which they arrived."""
    lost: dict[str, str] = field(default_factory=dict)
    """Branch → why it did not arrive; branches that were cancelled are in neither."""


async def join(how: Join, branches: Mapping[str, Coroutine[Any, Any, object]]) -> Joined:
    """Run branches side by side, and stop as soon as the join is met or cannot be met any more.

    Args:
        how: Where they meet, and how many must arrive: `decision.join`.
        branches: Target → its coroutine. One that returns False or fails with one of Wonder's errors is lost; any
            other result arrives. Other failures fail the join.

    Returns:
        Who arrived and who was lost; the rest were cancelled.
    """
    joined = Joined(met=False)
    tasks = {name: asyncio.ensure_future(branch) for name, branch in branches.items()}
    names = {task: name for name, task in tasks.items()}
    pending = set(names)
    try:
        while (tally := how.tally(len(tasks), len(joined.arrived), len(joined.lost))) == "open":
            done, _ = await workflow.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            pending -= set(done)
            # In the order of the table, whichever of them the event loop names first.
            for task in (task for task in tasks.values() if task in done):
                _count(joined, names[task], task)
        joined.met = tally == "met"
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await workflow.wait(pending)
            # Looked at, so that what a cancelled branch raised on its way out is not reported as forgotten.
            [task.exception() for task in pending if not task.cancelled()]
    return joined


def _count(joined: Joined, name: str, task: "asyncio.Future[object]") -> None:
    try:
        result = task.result()
    except WonderError as error:
        joined.lost[name] = f"{type(error).__name__}: {error}"
        return
    if result is False:
        joined.lost[name] = "it ended elsewhere"
    else:
        joined.arrived.append(name)
