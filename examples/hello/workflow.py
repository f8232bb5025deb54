"""Ask a model, and go on alone only if it was sure."""

from pydantic import BaseModel
from temporalio import workflow

from wonder import ActionDef, Context, Transition, TransitionTable, act


class Question(BaseModel):
    text: str


sort = ActionDef(name="sort", prompt="Ticket: {text}\nTriage:")
routes = TransitionTable(
    [
        Transition(from_=sort, to="doubtful", condition="thought_trace.overall_confidence < 0.7"),
        Transition(from_=sort, to="sure", condition="otherwise"),
    ],
    on_unknown="doubtful",
)


@workflow.defn(name="Hello")
class Hello:
    @workflow.run
    async def run(self, question: Question) -> str:
        ctx = Context()
        answer = await act(ctx, sort, text=question.text)
        return f"{routes.decide(ctx, after='sort').to}: {answer}"
