"""`wonder.Graph` on a real server and the real model: what data says is what runs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer

from examples.ticket_triage.workflow import QUEUES, Resolution, Ticket, TicketTriage
from tests.integration.review.polling import eventually
from wonder import WonderPlugin
from wonder.errors import ReviewNotFound
from wonder.graph.files import read
from wonder.graph.spec import GraphResult, GraphRun, GraphSpec
from wonder.graph.workflow import Graph
from wonder.history.reading import context_of
from wonder.names import WORKFLOW_QUEUE, review_id
from wonder.review.client import ReviewClient
from wonder.routing.decision import RouteDecision

pytestmark = pytest.mark.usefixtures("workers")

EXAMPLES = Path(__file__).parents[2] / "examples"
TICKETS = [
    json.loads(line)["text"] for line in (EXAMPLES / "ticket_triage" / "tickets.jsonl").read_text().splitlines()[:8]
]
HARD = ["Qorvex brumbles the zint.", "My lawyer will sue you over the burns from your heater."]
CLEAR = "I was charged twice for my invoice."
Run = WorkflowHandle[Graph, GraphResult]


def graph(**changes: Any) -> dict[str, Any]:
    """A small graph, changed."""
    return {
        "name": "small",
        "input": {"text": "string"},
        "actions": {
            "classify": {"prompt": "Ticket: {text}\nTriage:", "output": {"team": "string", "urgency": "string"}}
        },
        "rows": [
            {"from": "classify", "to": "human_review", "condition": "thought_trace.overall_confidence < 0.7"},
            {"from": "classify", "to": "done", "condition": "otherwise"},
        ],
        "reviews": {"human_review": {"queue": "support", "sla": "1m", "on_timeout": "reject"}},
        "ends": ["done"],
    } | changes


async def start(client: Client, id: str, graph: Any, **given: Any) -> Run:
    # As the Temporal UI sends it: the name of the type, and JSON.
    return await client.start_workflow(
        "wonder.Graph",
        {"graph": graph, "input": given},
        id=id,
        task_queue=WORKFLOW_QUEUE,
        result_type=GraphResult,
    )


async def failure(client: Client, id: str, graph: Any, **given: Any) -> str:
    run = await start(client, id, graph, **given)
    with pytest.raises(WorkflowFailureError) as caught:
        await run.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.non_retryable or cause.type in ("GraphError", "TableError", "ConditionError", "LoopLimit")
    return cause.message


async def approve(client: Client, run: str) -> None:
    reviews = ReviewClient(client)

    async def there() -> bool:
        try:
            return (await reviews.show(review_id(run, "classify", 1))).status == "open"
        except ReviewNotFound:
            return False

    await eventually(there, bool)
    await reviews.decide(review_id(run, "classify", 1), "approve", "ana")


async def test_the_triage_as_data_decides_as_the_coded_one(client: Client, unique: str) -> None:
    data = read(EXAMPLES / "graph" / "ticket_triage.yaml").model_dump(mode="json", by_alias=True)

    async def both(number: int, text: str) -> None:
        coded_id, graph_id = f"{unique}-c{number}", f"{unique}-g{number}"
        coded: WorkflowHandle[Any, Resolution] = await client.start_workflow(
            TicketTriage.run, Ticket(id=coded_id, text=text), id=coded_id, task_queue=WORKFLOW_QUEUE
        )
        run = await start(client, graph_id, data, text=text)

        async def decided(id: str) -> Any:
            return await eventually(lambda: _context(client, id), lambda ctx: ctx is not None and bool(ctx.decisions))

        (mine,), (theirs,) = (await decided(graph_id)).decisions, (await decided(coded_id)).decisions
        if theirs.to in QUEUES:
            await asyncio.gather(approve(client, coded_id), approve(client, graph_id))
        resolution, result = await coded.result(), await run.result()
        changed = {"audit": False, "explanation": "", "table": "", "cost": None}
        assert _bare(mine, changed) == _bare(theirs, changed)
        for one, other in zip(mine.rows, theirs.rows, strict=True):
            # The two calls may share passes with different neighbours, which moves the last digits.
            assert one.readings == pytest.approx(other.readings, rel=1e-4, abs=1e-6)
        assert result.end == resolution.route
        assert result.answer == (resolution.triage.model_dump() if resolution.triage else None)
        assert result.decided_by == resolution.decided_by
        assert result.confidence == pytest.approx(resolution.confidence, rel=1e-4)
        await Replayer(workflows=[Graph], plugins=[WonderPlugin()]).replay_workflow(await run.fetch_history())

    await asyncio.gather(*(both(number, text) for number, text in enumerate([*TICKETS, *HARD])))


def _bare(decision: RouteDecision, changed: dict[str, Any]) -> RouteDecision:
    rows = [row.model_copy(update={"readings": {}}) for row in decision.rows]
    return decision.model_copy(update={**changed, "rows": rows})


async def _context(client: Client, id: str) -> Any:
    try:
        return await context_of(client, id)
    except Exception:
        return None


async def test_a_person_sends_the_run_on_and_their_answer_counts(client: Client, unique: str) -> None:
    reviews = {"human_review": {"sla": "1m", "on_timeout": "reject", "then": {"edit": "again", "reject": "dropped"}}}
    actions = graph()["actions"] | {
        "again": {"prompt": "Ticket: {team}\nTriage:", "variables": {"team": "classify.team"}, "output": "string"}
    }
    rows = [*graph()["rows"], {"from": "again", "to": "done", "condition": "otherwise"}]
    data = graph(reviews=reviews, actions=actions, rows=rows, ends=["done", "dropped"])
    run = await start(client, unique, data, text=HARD[0])
    await eventually(lambda: _context(client, unique), lambda ctx: ctx is not None and bool(ctx.decisions))
    client_of = ReviewClient(client)
    await eventually(lambda: _shown(client_of, review_id(unique, "classify", 1)), bool)
    await client_of.decide(
        review_id(unique, "classify", 1), "edit", "ana", value={"team": "late parcel", "urgency": "low"}
    )
    result = await run.result()
    assert result.route == ["classify", "human_review", "again", "done"]
    assert result.answers["classify"] == {"team": "late parcel", "urgency": "low"}
    assert (result.end, result.decided_by) == ("done", "model")


async def _shown(reviews: ReviewClient, id: str) -> bool:
    try:
        return bool(await reviews.show(id))
    except ReviewNotFound:
        return False


async def test_branches_meet_again_where_enough_of_them_are_sure(client: Client, unique: str) -> None:
    data = read(EXAMPLES / "graph" / "second_opinion.yaml").model_dump(mode="json", by_alias=True)
    # Whatever the first answer says, it is doubted; the others are believed.
    for row in data["rows"]:
        if row.get("name") == "unsure":
            row["condition"] = "thought_trace.overall_confidence < 0.7 or visits < 9"
        if row["condition"] == "thought_trace.overall_confidence >= 0.7":
            row["condition"] = "known(thought_trace.overall_confidence) or visits > 5"
    run = await start(client, unique, data, text=CLEAR)
    result = await run.result()
    assert result.end == "agreed"
    assert result.route[:2] == ["classify", "classify"]
    assert result.route[-1] == "agreed"
    assert set(result.route) <= {"classify", "quoted", "urgent", "polite", "agreed"}
    ctx = await context_of(client, unique)
    escalated, fanned = [decision for decision in ctx.decisions if decision.after == "classify"]
    assert (escalated.reason, fanned.targets) == ("escalation", ["quoted", "urgent", "polite"])
    assert fanned.cost is not None
    assert fanned.cost.calls == 9
    assert fanned.budget is not None


async def test_a_long_run_continues_as_new_ones_and_forgets_neither_visits_nor_what_it_used(
    client: Client, unique: str
) -> None:
    rows = [
        {"from": "classify", "to": "classify", "condition": "visits < 7"},
        {"from": "classify", "to": "done", "condition": "otherwise"},
    ]
    data = graph(rows=rows, continue_after=2, on_unknown="done", reviews={}, budget={"tokens": 100_000})
    run = await start(client, unique, data, text=CLEAR)
    first = run.first_execution_run_id
    result = await run.result()
    assert result.route == ["classify"] * 7 + ["done"]
    assert result.spent.calls == 7
    last = await client.get_workflow_handle(unique).describe()
    assert last.run_id != first
    ctx = await context_of(client, unique)
    assert ctx.decisions[-1].visit == 7
    assert ctx.decisions[-1].budget is not None
    assert ctx.decisions[-1].budget.spent.tokens == result.spent.tokens
    assert len(ctx.thought_traces) < 7


async def test_a_loop_that_its_table_lets_go_on_is_ended_by_the_number_of_steps(client: Client, unique: str) -> None:
    rows = [
        {"from": "classify", "to": "classify", "condition": "visits < 900"},
        {"from": "classify", "to": "done", "condition": "otherwise"},
    ]
    data = graph(rows=rows, max_visits=1000, max_steps=3, on_unknown="done", reviews={})
    told = await failure(client, unique, data, text=CLEAR)
    assert told.startswith("the run has taken 3 steps and is at 'classify': raise max_steps")


async def test_an_accepted_answer_is_audited_beside_the_run(client: Client, unique: str) -> None:
    data = graph(audit_rate=1.0, audits={"queue": unique, "sla": "1m"})
    result = await (await start(client, unique, data, text=CLEAR)).result()
    assert (result.end, result.decided_by) == ("done", "model")
    reviews = ReviewClient(client)
    (row,) = await eventually(lambda: reviews.ls(unique), bool)
    assert row.id == f"audit/{unique}/classify/1"
    view = await reviews.show(row.id)
    assert view.request.prompt == f"Ticket: {CLEAR}\nTriage:"
    assert view.request.answer == result.answer
    await reviews.decide(row.id, "approve", "ana")


async def test_an_answer_that_does_not_parse_goes_where_its_row_or_else_unknown_goes(
    client: Client, unique: str
) -> None:
    actions = {"classify": {"prompt": "Ticket: {text}\nTriage:", "output": {"guilty": "boolean"}}}
    unrouted = graph(actions=actions, on_unknown="done", reviews={}, rows=graph()["rows"][1:])
    unrouted["rows"].insert(
        0, {"from": "classify", "to": "done", "condition": "thought_trace.overall_confidence < 0.1"}
    )
    result = await (await start(client, unique + "a", unrouted, text=CLEAR)).result()
    assert (result.end, result.answer, result.confidence) == ("done", None, None)
    rows = [*unrouted["rows"], {"from": "classify", "to": "broken", "on_error": "AnswerDoesNotParse"}]
    result = await (
        await start(client, unique + "b", unrouted | {"rows": rows, "ends": ["done", "broken"]}, text=CLEAR)
    ).result()
    assert result.end == "broken"


async def test_without_a_join_every_branch_goes_on_to_its_own_end(client: Client, unique: str) -> None:
    second = {"prompt": "Ticket: {text} please\nTriage:", "output": "string"}
    data = graph(
        actions=graph()["actions"] | {"again": second},
        rows=[
            {"from": "classify", "to": "again", "condition": "thought_trace.overall_confidence > 0"},
            {"from": "classify", "to": "noted", "condition": "visits < 3"},
            {"from": "classify", "to": "done", "condition": "otherwise"},
            {"from": "again", "to": "done", "condition": "otherwise"},
        ],
        hit_policy={"classify": "all"},
        ends=["done", "noted"],
        reviews={},
        on_unknown="done",
    )
    result = await (await start(client, unique, data, text=CLEAR)).result()
    assert result.ends == ["done", "noted"]
    assert sorted(result.route) == ["again", "classify", "done", "noted"]


@pytest.mark.parametrize(
    ("changes", "given", "told"),
    [
        ({"onunknown": "x"}, {"text": CLEAR}, "GraphSpec has no setting onunknown; it has "),
        ({"actions": {"classify": {"promt": "hi"}}}, {"text": CLEAR}, "GraphAction has no setting promt"),
        (
            {"rows": [{"from": "classify", "to": "done", "condition": "thought_trace.overal_confidence < 1"}]},
            {"text": CLEAR},
            "ThoughtTrace has no field 'overal_confidence'; did you mean 'overall_confidence'?",
        ),
        ({}, {"txt": CLEAR}, "the graph's input has no field 'txt': did you mean 'text'?"),
        ({}, {"text": [1]}, "the input does not fit the graph (text: Input should be a valid string)"),
    ],
)
async def test_a_graph_that_cannot_run_ends_with_a_sentence_before_anything_is_asked(
    client: Client, unique: str, changes: dict[str, Any], given: dict[str, Any], told: str
) -> None:
    assert told in await failure(client, unique, graph(**changes), **given)
    history = await client.get_workflow_handle(unique).fetch_history()
    assert not any(event.HasField("activity_task_scheduled_event_attributes") for event in history.events)


def test_the_input_of_a_graph_has_a_schema_for_whoever_fills_it_in() -> None:
    schema = GraphRun.model_json_schema()
    assert schema["properties"]["graph"]["$ref"].endswith("/GraphSpec")
    assert {"rows", "actions", "reviews"} <= set(schema["$defs"]["GraphSpec"]["properties"])
    assert GraphSpec.model_validate(graph()) == GraphRun.model_validate_json(json.dumps({"graph": graph()})).graph
