"""Who is next: by priority, then by arrival; who is passed over again and again rises."""

from collections.abc import Iterator
from typing import Final

from wonder.engine.job import Job

AGING: Final = 16
"""A request rises by one priority for so many younger ones that went before it, so that none waits for ever."""


class Queue:
    """Requests that wait for a row."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def add(self, job: Job) -> None:
        """Put a request at the end."""
        self._jobs.append(job)

    def best(self) -> Job | None:
        """Who is next; nobody overtakes it for being smaller, or a large one would never get its room."""
        return max(self._jobs, key=lambda job: job.priority + job.passed_over // AGING, default=None)

    def take(self, job: Job) -> None:
        """Admit a request."""
        at = self._jobs.index(job)
        for older in self._jobs[:at]:
            older.passed_over += 1
        del self._jobs[at]

    def take_all(self) -> list[Job]:
        """Empty the queue."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def drop_ended(self) -> None:
        """Forget who was cancelled."""
        self._jobs = [job for job in self._jobs if not job.is_over]
