"""`NotAllowed`: the one refusal that is about the person, not about the item."""

from wonder.errors import ReviewError


class NotAllowed(ReviewError):
    """This person may not handle the item, or this verdict is not on offer."""
