"""The list of what waits: order, filters, and `next` under competition."""

import asyncio

from tests.integration.review.conftest import Opener
from tests.integration.review.polling import eventually, waiting
from wonder.review.client import ReviewClient


def trace(confidence: float | None) -> dict[str, object]:
    return {"action": "classify", "model": "support-desk", "overall_confidence": confidence}


async def test_the_least_certain_item_comes_first_and_the_unknown_before_it(
    ask: Opener, reviews: ReviewClient, unique: str
) -> None:
    for confidence in (0.9, None, 0.3):
        await ask(queue=unique, trace=trace(confidence))
    assert [row.confidence for row in await waiting(reviews, unique, 3)] == [None, 0.3, 0.9]


async def test_items_with_and_without_search_attributes_are_listed_alike(
    ask: Opener, reviews: ReviewClient, unique: str
) -> None:
    for indexed in (True, False):
        await ask(queue=unique, search_attributes=indexed)
    await waiting(reviews, unique, 2)


async def test_the_list_filters_by_state_and_person(ask: Opener, reviews: ReviewClient, unique: str) -> None:
    first, second = await ask(queue=unique), await ask(queue=unique)
    await waiting(reviews, unique, 2)
    await reviews.claim(first.id, "ana")
    await reviews.decide(second.id, "approve", "bob")
    await eventually(lambda: reviews.ls(unique, "decided"), lambda rows: [row.id for row in rows] == [second.id])
    await eventually(lambda: reviews.ls(unique, "claimed"), lambda rows: [row.id for row in rows] == [first.id])
    assert [row.id for row in await reviews.ls(unique, assignee="ana")] == [first.id]
    assert [row.id for row in await reviews.ls(unique)] == [first.id]
    assert len(await reviews.ls(unique, "all")) == 2
    assert await reviews.ls(unique, "open") == []


async def test_people_who_ask_for_the_next_item_at_once_get_different_ones(
    ask: Opener, reviews: ReviewClient, unique: str
) -> None:
    for _ in range(5):
        await ask(queue=unique)
    await waiting(reviews, unique, 5)
    taken = await asyncio.gather(*(reviews.next(f"person-{n}", unique) for n in range(6)))
    ids = [row.id for row in taken if row is not None]
    assert len(ids) == 5
    assert len(set(ids)) == 5


async def test_who_holds_an_item_gets_it_again(ask: Opener, reviews: ReviewClient, unique: str) -> None:
    await ask(queue=unique)
    await waiting(reviews, unique)
    mine = await reviews.next("ana", unique)
    assert mine is not None
    await eventually(lambda: reviews.ls(unique, "claimed"), bool)
    again = await reviews.next("ana", unique)
    assert again is not None
    assert again.id == mine.id
    assert await reviews.next("bob", unique) is None
