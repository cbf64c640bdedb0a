"""Which commit of this code it is that runs."""

import subprocess
from pathlib import Path

_HERE = Path(__file__)


def commit_tags() -> dict[str, str]:
    """Return MLflow's tags for the commit and whether the tree differs; none outside a checkout.

    Files that git does not know make no difference: they may be anybody's data.
    """
    try:
        # A checkout that this code is merely installed in does not know this file.
        _git("ls-files", "--error-unmatch", _HERE.name)
        told = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return {}
    commit, _, dirty = told.partition("-")
    return {"mlflow.source.git.commit": commit, "git.dirty": "true" if dirty else "false"}


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=_HERE.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
