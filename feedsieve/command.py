"""Exit codes of commands, and one line on stderr for an error that users can cause."""

import sys
from collections.abc import Callable
from pathlib import Path

from feedsieve.errors import FeedsieveError

FAILED, INTERRUPTED = 1, 130


def run_command(name: str, work: Callable[[], int | None], data: Path | str | None = None) -> int:
    """Run `work` and return the exit code: its result (0 for None), 1 if it failed, 130 for Ctrl-C.

    FeedsieveError and OSError print `name: message` on stderr. So does ValueError if `data`, the
    user's file or store, is given: it may have too few messages to split. Other exceptions are bugs
    and are raised.
    """
    try:
        return work() or 0
    except FeedsieveError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or ''}: {error.strerror or error}"
    except ValueError as error:
        if data is None:
            raise
        reason = f"{data}: {error}"
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    print(f"{name}: {reason}", file=sys.stderr)
    return FAILED
