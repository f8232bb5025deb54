"""`wonder.Graph`: runs a graph; the run can be started from the Temporal UI by whoever can fill in a form."""

import asyncio
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from temporalio import workflow

from wonder.actions import prompts
from wonder.actions.act import act, show
from wonder.actions.fan_out import Joined, join
from wonder.errors import AnswerDoesNotParse, LoopLimit, WonderError
from wonder.graph.carry import carried
from wonder.graph.plan import plan
from wonder.graph.spec import GraphResult, GraphRun, Place, Resume
from wonder.names import GRAPH
from wonder.review.ask import human_review
from wonder.review.audit import audit_review
from wonder.routing import budget
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision


@workflow.defn(name=GRAPH)
class Graph:
    """One run of a graph: actions, rows, reviews, joins and audits as the data says.

    The graph is part of the input, so that a replay meets the very table the run began with.
    """

    @workflow.run
    async def run(self, given: GraphRun) -> GraphResult:
        """Check the graph completely, then walk it to an end.

        Raises:
            GraphError: The graph or its input cannot be; the message says what to write.
            ConditionError: A condition cannot mean what it says.
            TableError: The rows as a whole are wrong.
            LoopLimit: The run has taken as many steps as the graph allows.
            WonderError: An action failed, and no row is about its error.
        """
        self._plan = plan(given.graph)
        self._given = given
        state = self._plan.check_input(given.input)
        resume = given.resume
        self._ctx = resume.ctx if resume else Context(state=state)
        self._route = list(resume.route) if resume else []
        self._steps = resume.steps if resume else 0
        self._began = self._steps
        show(self._ctx)
        place = resume.place if resume else Place(node=given.graph.first)
        return self._result(await self._walk(place, frozenset()))

    # Walking ------------------------------------------------------------------------------------------------------

    async def _walk(self, place: Place, stops: frozenset[str]) -> list[Place]:
        """Go on until an end, or one of the stops where branches meet; several places where it fanned out for good."""
        spec = self._plan.spec
        while place.node not in stops:
            if not stops:
                self._continue_as_new(place)
            self._count(place.node)
            if place.node in spec.actions:
                found = await self._act(place, stops)
                if len(found) > 1:
                    return found
                place = found[0]
            elif place.node in spec.reviews:
                place, over = await self._review(place)
                if over:
                    break
            else:
                break
        return [place]

    def _count(self, node: str) -> None:
        self._steps += 1
        self._route.append(node)
        if self._steps > self._plan.spec.max_steps:
            raise LoopLimit(
                f"the run has taken {self._plan.spec.max_steps} steps and is at {node!r}: "
                "raise max_steps, or look at why it does not end"
            )

    def _continue_as_new(self, place: Place) -> None:
        """Begin a new history when this one has grown; only where the run stands at a single place."""
        due = self._steps - self._began >= self._plan.spec.continue_after
        if due or workflow.info().is_continue_as_new_suggested():
            resume = Resume(place=place, ctx=carried(self._ctx), route=self._route, steps=self._steps)
            workflow.continue_as_new(self._given.model_copy(update={"resume": resume}))

    # Steps --------------------------------------------------------------------------------------------------------

    async def _act(self, place: Place, stops: frozenset[str]) -> list[Place]:
        """Run an action, and go where its table says."""
        name = place.node
        action = self._plan.actions[name].changed_by(place.retry)
        error: WonderError | None = None
        try:
            answer = await act(self._ctx, action, **self._plan.variables(name, self._ctx.state, self._ctx.outputs))
            place = Place(node=name, action=name, answer=to_jsonable_python(answer))
        except AnswerDoesNotParse as found:
            # Its confidence is unknown, so without a row of its own it goes where unknown goes.
            error = found if self._plan.table.is_about(name, found) else None
            place = Place(node=name, action=name)
        except WonderError as found:
            error = found
        decision = self._plan.table.decide(self._ctx, after=name, error=error)
        await self._audit(place, decision)
        if len(decision.targets) == 1:
            return [place.model_copy(update={"node": decision.to, "retry": decision.retry})]
        return await self._fan_out(place, decision, stops)

    async def _audit(self, place: Place, decision: RouteDecision) -> None:
        if not decision.audit:
            return
        audits = self._plan.spec.audits
        await audit_review(
            self._ctx,
            place.answer,
            queue=audits.queue,
            sla=audits.sla,
            prompt=self._prompt(place.action),
            step=place.action,
            output=self._plan.actions[place.action].output,
        )

    async def _fan_out(self, place: Place, decision: RouteDecision, stops: frozenset[str]) -> list[Place]:
        """Walk all targets side by side: to their ends, or until enough of them have met again."""
        starts = [place.model_copy(update={"node": target, "retry": decision.retry}) for target in decision.targets]
        how = decision.join
        if how is None:
            ends: dict[str, list[Place]] = {}
            branches = {start.node: self._end(start, stops, ends) for start in starts}
            await asyncio.gather(*branches.values())
            return [end for start in starts for end in ends[start.node]]
        inner = stops | {how.at}
        joined: Joined = await join(how, {start.node: self._arrives(start, inner, how.at) for start in starts})
        node = how.at if joined.met else how.otherwise or self._plan.spec.unknown
        return [place.model_copy(update={"node": node, "retry": None})]

    async def _end(self, start: Place, stops: frozenset[str], ends: dict[str, list[Place]]) -> None:
        # A stop that is nowhere keeps the branches from continuing the whole run as new.
        ends[start.node] = await self._walk(start, stops | {""})

    async def _arrives(self, start: Place, stops: frozenset[str], at: str) -> bool:
        return any(place.node == at for place in await self._walk(start, stops))

    async def _review(self, place: Place) -> tuple[Place, bool]:
        """Ask a person; then where they sent the run, and whether it is over."""
        node = place.node
        asked = self._plan.spec.reviews[node]
        variables = self._plan.variables(node, self._ctx.state, self._ctx.outputs)
        action = self._plan.actions[place.action] if place.action else None
        adapter: TypeAdapter[Any] = TypeAdapter(action.output if action else Any)
        answer = None if place.answer is None else adapter.validate_python(place.answer)
        reviewed = await human_review(
            self._ctx,
            answer,
            sla=asked.sla,
            on_timeout=asked.on_timeout,
            queue=asked.queue,
            title=_filled(asked.title, variables),
            prompt=_filled(asked.prompt, variables) or self._prompt(place.action),
            step=place.action or None,
            output=action.output if action else None,
            allowed=asked.allowed,
            reviewers=asked.reviewers,
        )
        value = None if reviewed.verdict == "reject" else to_jsonable_python(reviewed.value)
        if place.action and reviewed.verdict == "edit":
            self._ctx.outputs[place.action] = reviewed.value
        place = place.model_copy(
            update={
                "answer": value,
                "decided_by": reviewed.reviewer or "deadline",
                "verdict": reviewed.verdict,
                "node": asked.then.get(reviewed.verdict, node),
                "retry": None,
            }
        )
        return place, reviewed.verdict not in asked.then

    def _prompt(self, action: str) -> str:
        """What the model was asked."""
        if not action:
            return ""
        variables = self._plan.variables(action, self._ctx.state, self._ctx.outputs)
        return prompts.render(self._plan.actions[action].prompt, variables)

    def _result(self, ends: list[Place]) -> GraphResult:
        last = ends[0]
        trace = self._ctx.trace(last.action)
        return GraphResult(
            graph=self._plan.spec.name,
            end=last.node,
            ends=[end.node for end in ends],
            answer=last.answer,
            answers=to_jsonable_python(self._ctx.outputs),
            decided_by=last.decided_by,
            verdict=last.verdict,
            confidence=trace.overall_confidence if trace else None,
            route=self._route,
            spent=budget.total(self._ctx.used(), self._plan.spec.budget),
        )


def _filled(template: str, variables: dict[str, str]) -> str:
    return prompts.render(template, {name: variables[name] for name in prompts.variables(template)})
