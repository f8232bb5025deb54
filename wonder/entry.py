"""What every program of Wonder does around its work: log set-up, one sentence per error, a safe exit."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

from wonder.errors import (
    AlreadyDecided,
    CalibrationConflict,
    CalibrationError,
    ClaimConflict,
    DeadlinePassed,
    DecisionInvalid,
    DefinitionError,
    DeviceLost,
    LensConflict,
    LensError,
    ReviewError,
    ServerNotReachable,
    SetupError,
    WonderError,
)

START_AGAIN = 6
"""Exit code of a process that cannot go on, though the same process started anew can."""

EXIT_CODES: tuple[tuple[type[WonderError], int], ...] = (
    (DefinitionError, 2),
    (DecisionInvalid, 2),
    (CalibrationConflict, 3),
    (CalibrationError, 4),
    (LensConflict, 3),
    (LensError, 4),
    (AlreadyDecided, 3),
    (ClaimConflict, 3),
    (DeadlinePassed, 3),
    (ReviewError, 4),
    (ServerNotReachable, 5),
    (SetupError, 5),
    (DeviceLost, START_AGAIN),
)
"""First match wins: 2 wrong use, 3 conflict with somebody else, 4 refused, 5 surroundings, 6 start me again; anything
else is 1."""


def exit_code(error: WonderError) -> int:
    """The exit code of a program that ends with this error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def log_to_stderr(level: int = logging.INFO) -> None:
    """One line per event on standard error, the event's fields behind it."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def run(main: Callable[[], Awaitable[int]]) -> NoReturn:
    """Run a program and leave the process.

    The process ends by `os._exit` after flushing: a short-lived client of the Temporal SDK may otherwise crash in
    the interpreter's shutdown, after its work is done (temporalio/sdk-python#300), and scripts would see exit code 134.
    """
    code = 1
    try:
        code = asyncio.run(_awaited(main))
    except WonderError as error:
        sys.stderr.write(f"wonder: {error}\n")
        code = exit_code(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 141
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        logging.getLogger("wonder").exception("unexpected error")
    leave(code)


def leave(code: int) -> NoReturn:
    """Flush and end the process without the interpreter's shutdown."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            continue
    os._exit(code)


async def _awaited(main: Callable[[], Awaitable[int]]) -> int:
    return await main()
