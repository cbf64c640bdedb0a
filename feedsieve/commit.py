"""The git commit that the running code is of."""

import subprocess
from pathlib import Path

_HERE = Path(__file__)
COMMIT_FILE = "commit.txt"  # written into wheels by setup.py


def find_commit() -> str | None:
    """Return 40 hexadecimal digits, with `-dirty` if tracked files differ; None if it is unknown.

    A checkout asks git. A wheel has a file; a Bento has a label instead, and no file.
    """
    try:
        _git("ls-files", "--error-unmatch", _HERE.name)  # not a checkout with us in its venv
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        file = _HERE.with_name(COMMIT_FILE)
        return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_HERE.parent), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
