"""Waiting for what the server shows a little later."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from wonder.review.client import ReviewClient
from wonder.review.types import ReviewSummary

T = TypeVar("T")


async def eventually(read: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """Read again and again until it holds; fail after a minute, which only a broken server takes."""
    async with asyncio.timeout(60):
        while not holds(found := await read()):  # noqa: ASYNC110 - the server changes it, there is no event to wait for
            await asyncio.sleep(0.05)
    return found


async def waiting(reviews: ReviewClient, queue: str, count: int = 1, *, n: int | None = None) -> list[ReviewSummary]:
    """The open items of a queue, once the list shows that many (and the `n`th review of a step first, if asked)."""
    return await eventually(
        lambda: reviews.ls(queue),
        lambda rows: len(rows) >= count and (n is None or rows[0].id.endswith(f"/{n}")),
    )
