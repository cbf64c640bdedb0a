"""`python -m docs.command_help`: print the --help of every command as JSON.

The commands run in this one process, so that libraries such as PyTorch are imported once.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import warnings

# By heading of docs/reference/commands.md. A command is a module and perhaps its subcommand.
COMMANDS = {
    "Runtime": [
        "feedsieve",
        "feedsieve serve",
        "feedsieve import",
        "feedsieve watch",
        "feedsieve score",
        "feedsieve keys",
        "feedsieve keys add",
        "feedsieve keys list",
        "feedsieve keys revoke",
        "feedsieve deploy",
        "feedsieve db",
        "feedsieve db backup",
        "feedsieve db restore",
        "feedsieve db check",
        "feedsieve labels",
        "feedsieve labels import",
        "feedsieve labels export",
        "feedsieve labels agreement",
    ],
    "Training": [
        "train",
        "train.compare",
        "train.learning_curve",
        "train.tune",
        "train.audit",
        "train.behave",
        "train.promote",
        "train.simulate_promotion",
        "train.features",
        "train.cluster",
        "export",
    ],
    "Labelling": [
        "labeling.next",
        "labeling push",
        "labeling pull",
        "labeling.server",
        "labeling.simulate",
        "labeling.simulate_rechecking",
    ],
    "Sample corpus": ["data.generate", "data.choose"],
    "Release": ["deploy.image.check", "deploy.audit"],
    "Measurements": [
        "loadtests",
        "loadtests.benchmark",
        "loadtests.sections.backends",
        "loadtests.behind_bulk",
        "loadtests.soak",
        "loadtests.fuzz",
        "loadtests.scaling",
        "loadtests.rolling_restart",
        "loadtests.rehearse",
        "loadtests.rehearse_deployment",
    ],
}
WIDTH = 88  # columns


def main() -> None:
    """Print {heading: {command: help}}."""
    warnings.simplefilter("ignore")  # runpy warns of a module that another one has imported
    os.environ["COLUMNS"] = str(WIDTH)
    answers = {
        heading: {command: _help(command) for command in group}
        for heading, group in COMMANDS.items()
    }
    print(json.dumps(answers))


def _help(command: str) -> str:
    """Return what `python -m command --help` prints. Raises RuntimeError if it fails."""
    module, *subcommand = command.split()
    sys.argv = [module, *subcommand, "--help"]
    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            code = exit.code
    if code != 0:
        raise RuntimeError(f"`python -m {command} --help` exits with {code}")
    return printed.getvalue()


if __name__ == "__main__":
    main()
