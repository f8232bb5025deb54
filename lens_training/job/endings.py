"""What follows the end of a job: the table of outcomes and treatments, as a pure function."""

from typing import Final, Literal

from lens_training.job.orders import JobEnd
from wonder.training.types import Tries
from wonder.wire import WireRecord

FRUITLESS: Final = 5
"""Attempts in a row without a new checkpoint, after which a run fails."""
OUT_OF_MEMORY: Final = 1
DIVERGED: Final = 2
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 300.0
FREE: Final = frozenset({"preempted", "lost", "stalled", "crashed"})


class Verdict(WireRecord):
    """What to do after a job."""

    then: Literal["go_on", "again", "fail"]
    tries: Tries
    wait_s: float = 0.0
    """Before it is tried again."""
    error: str = ""
    note: str = ""
    """For people."""


def after(end: JobEnd, tries: Tries, *, training: bool, asked: bool = False) -> Verdict:
    """Whether the work goes on, is tried again, or fails.

    A job that was taken from us (preempted, lost, stalled) is started again for nothing, as long as attempts leave new
    checkpoints now and then. Memory that is too small is answered once, by pieces of half the size; a loss that is no
    number twice, by the checkpoint before the newest and half the rate. Anything else that has a name is the same the
    next time.

    Args:
        end: How it ended.
        tries: What it has been through.
        training: Whether it was a segment of training.
        asked: Whether the run itself wanted it to end, which then counts for nothing.
    """
    if end.how in ("completed", "segment_done"):
        kept = {"rate_scale": tries.rate_scale, "pieces": tries.pieces, "mark": max(end.mark, tries.mark)}
        counted = {"out_of_memory": tries.out_of_memory, "diverged": tries.diverged}
        return Verdict(then="go_on", tries=Tries(**kept, **counted))
    if end.how in FREE and asked:
        further = tries.model_copy(update={"attempt": tries.attempt + 1, "back_to": None})
        return Verdict(then="again", tries=further.model_copy(update={"mark": max(end.mark, tries.mark)}))
    if end.how in FREE:
        return _free(end, tries)
    further = tries.model_copy(update={"attempt": tries.attempt + 1, "back_to": None})
    if end.error == "OutOfMemory" and tries.out_of_memory < OUT_OF_MEMORY and training:
        pieces = tries.pieces * 2
        return Verdict(
            then="again",
            tries=further.model_copy(update={"pieces": pieces, "out_of_memory": tries.out_of_memory + 1}),
            note=f"out of memory at step {end.step}: each batch is cut into {pieces} times as many pieces",
        )
    if end.error == "Diverged" and tries.diverged < DIVERGED:
        older = [step for step in end.checkpoints if step < end.checkpoint]
        scale, back_to = tries.rate_scale / 2, older[-1] if older else 0
        return Verdict(
            then="again",
            tries=further.model_copy(
                update={"rate_scale": scale, "diverged": tries.diverged + 1, "back_to": back_to, "mark": float(back_to)}
            ),
            note=f"diverged after step {end.step}: back to step {back_to} with the learning rates × {scale:g}",
        )
    return Verdict(then="fail", tries=further, error=end.error, note=_finally(end, tries))


def _free(end: JobEnd, tries: Tries) -> Verdict:
    got_further = end.mark > tries.mark
    fruitless = 0 if got_further else tries.fruitless + 1
    what = f"{end.how}" + (f" on {end.node}" if end.node else "") + (f" ({end.message})" if end.message else "")
    further = tries.model_copy(
        update={
            "attempt": tries.attempt + 1,
            "fruitless": fruitless,
            "mark": max(end.mark, tries.mark),
            "back_to": None,
        }
    )
    if fruitless >= FRUITLESS:
        return Verdict(
            then="fail",
            tries=further,
            error="NoProgress",
            note=f"{fruitless} attempts in a row came no further than {tries.mark:g}; the last one was {what}: look at "
            "its log, give a segment more time or memory, or let the run checkpoint more often",
        )
    wait_s = 0.0 if got_further else min(LONGEST_WAIT_S, FIRST_WAIT_S * 4 ** (fruitless - 1))
    return Verdict(then="again", tries=further, wait_s=wait_s, note=f"{what}: goes on from {end.mark:g}")


def _finally(end: JobEnd, tries: Tries) -> str:
    if end.error == "Diverged":
        return f"after {tries.diverged} times with half the rate, the last {tries.rate_scale:g} of it: {end.message}"
    if end.error == "OutOfMemory" and tries.out_of_memory:
        return f"also with {tries.pieces} times as many pieces: {end.message}"
    return end.message
