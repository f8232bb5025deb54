"""`Join`: where the branches of a fan-out meet again, and how many must arrive."""

from typing import Annotated, Literal

from pydantic import Field

from wonder.wire import Settings

Need = Literal["all", "any"] | Annotated[int, Field(ge=1)]
"""How many branches must arrive: all of them, one, or this many."""

Tally = Literal["met", "open", "lost"]


class Join(Settings):
    """Branches run side by side; once enough of them have arrived at `at`, the run goes on there alone.

    A branch that ends elsewhere, or fails, does not arrive. The ones that are still under way when the join is met are
    cancelled.
    """

    at: Annotated[str, Field(min_length=1)]
    """The target at which branches arrive, and at which the run goes on."""
    need: Need = "all"
    otherwise: Annotated[str, Field(min_length=1)] | None = None
    """Where the run goes when too few can arrive any more; by default the table's `on_unknown`."""

    def needed(self, branches: int) -> int:
        """How many of so many branches must arrive."""
        if self.need == "all":
            return branches
        return 1 if self.need == "any" else self.need

    def tally(self, branches: int, arrived: int, lost: int) -> Tally:
        """Where the join stands.

        Args:
            branches: How many there are.
            arrived: How many have reached `at`.
            lost: How many never will.
        """
        needed = self.needed(branches)
        if arrived >= needed:
            return "met"
        return "lost" if branches - lost < needed else "open"
