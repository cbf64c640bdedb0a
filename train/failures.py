"""How commands say what made them fail: in one line, without a traceback."""

import sys
from collections.abc import Callable
from pathlib import Path


def in_one_line(
    name: str,
    work: Callable[[], int | None],
    failures: tuple[type[Exception], ...],
    data: Path | None = None,
) -> int:
    """Do `work` and return what it returns, 0 for None; 1 after one line on stderr if it fails.

    `name` is the command's. `failures` say themselves what they are about, an OSError names its
    file, and `data`, if given, is blamed for a ValueError of no other kind: too few messages to
    split, say.
    """
    try:
        return work() or 0
    except failures as error:
        print(f"{name}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{name}: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    except ValueError as error:
        if data is None:
            raise
        print(f"{name}: {data}: {error}", file=sys.stderr)
    return 1
