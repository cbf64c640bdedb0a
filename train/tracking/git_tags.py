"""The git commit of the running code, as tags of a run.

MLflow tags runs of its fluent API only, by the path of the command, and adds the names of the user
and of the repository. It does not tag uncommitted changes.
"""

from feedsieve.commit import find_commit


def commit_tags() -> dict[str, str]:
    """Return MLflow's tag for the commit, and `git.dirty`; empty if the commit is unknown.

    Untracked files do not make the tree dirty: they may be anything.
    """
    described = find_commit()
    if described is None:
        return {}
    digits, _, dirty = described.partition("-")
    return {"mlflow.source.git.commit": digits, "git.dirty": "true" if dirty else "false"}
