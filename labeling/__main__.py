"""`python -m labeling`: push a batch of messages to Label Studio, and pull the labels."""

import argparse
import logging
import sys
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.errors import first_few, quote
from labeling import server
from labeling.pull import FEWEST_COMMON, Pulled, pull
from labeling.push import push
from labeling.studio import TOKEN_VARIABLE, Studio


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_command("labeling", lambda: options.run(options))


def _push(options: argparse.Namespace) -> None:
    pushed = push(Studio.open(options.url, options.token), options.batch)
    predictions = ", ".join(pushed.models) or "none: there is no model yet"
    print(
        f"{pushed.added:,} messages added to the project {pushed.title!r} at {options.url}, "
        f"{pushed.known:,} were there already"
    )
    if pushed.added:
        print(f"predictions: {predictions}")


def _pull(options: argparse.Namespace) -> None:
    pulled = pull(Studio.open(options.url, options.token), options.labeled)
    _print(pulled, options.labeled)


def _print(pulled: Pulled, path: Path) -> None:
    merged = pulled.merged
    for change in merged.changed:
        print(f"changed: {change}")
    if pulled.tied:
        tied = first_few([quote(name) for name in pulled.tied])
        print(f"left out {len(pulled.tied):,} messages on which annotators are tied: {tied}")
    if merged.other_text:
        other = first_few([quote(name) for name in merged.other_text])
        print(f"left out {len(merged.other_text):,} with another text in {path}: {other}")
    for pair in pulled.agreements:
        kappa = "undefined" if pair.kappa != pair.kappa else f"{pair.kappa:.2f}"
        print(
            f"{pair.first} and {pair.second} agree on {pair.same:.0%} of {pair.common:,} messages, "
            f"Cohen's kappa {kappa}"
        )
    touched = merged.added + merged.confirmed + len(merged.changed)
    print(
        f"{path}: {merged.added:,} labels added, {len(merged.changed):,} changed, "
        f"{merged.confirmed:,} confirmed, {len(merged.rows) - touched:,} other rows unchanged"
        + ("" if pulled.is_written else "; nothing new, the file was not written")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling",
        description="Push messages to Label Studio to be labelled, and pull the labels.",
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--url",
        default=f"http://127.0.0.1:{server.PORT}",
        help="Label Studio (%(default)s)",
    )
    where.add_argument(
        "--token",
        type=Path,
        default=server.DATA / server.TOKEN_FILE,
        metavar="FILE",
        help=f"file with the API token (%(default)s), unless {TOKEN_VARIABLE} is set",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pushing = commands.add_parser(
        "push",
        parents=[where],
        help="import a batch of messages",
        description="Import the messages of a CSV with msg_id,msg and optionally score into the"
        " project feedsieve, which is created if need be. No text is imported twice. The current"
        " model's score is shown as a prediction. A file of train.audit goes into a project of its"
        " own, with the reason next to each message.",
    )
    pushing.add_argument("batch", type=Path, metavar="BATCH.csv")
    pushing.set_defaults(run=_push)
    pulling = commands.add_parser(
        "pull",
        parents=[where],
        help="merge the labels into a file",
        description="Merge labels by majority into a CSV with msg_id,msg,label, with annotators and"
        " time. Rows that are not in Label Studio stay. A second run changes nothing. Prints the"
        f" agreement of annotators who share at least {FEWEST_COMMON} messages.",
    )
    pulling.add_argument("labeled", type=Path, metavar="LABELED.csv")
    pulling.set_defaults(run=_pull)
    return parser


if __name__ == "__main__":
    sys.exit(main())
