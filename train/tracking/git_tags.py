"""The git commit of the running code.

MLflow tags runs of its fluent API only, by the path of the command, and adds the names of the user
and of the repository. It does not tag uncommitted changes.
"""

import subprocess
from pathlib import Path

_HERE = Path(__file__)


def commit_tags() -> dict[str, str]:
    """Return MLflow's tag for the commit, and `git.dirty`; empty outside a checkout of this code.

    Untracked files do not make the tree dirty: they may be anything.
    """
    try:
        _git("ls-files", "--error-unmatch", _HERE.name)  # not a checkout with us in its venv
        described = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = described.partition("-")
    return {"mlflow.source.git.commit": commit, "git.dirty": "true" if dirty else "false"}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_HERE.parent), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
