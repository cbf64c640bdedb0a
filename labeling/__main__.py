"""`python -m labeling`: push a batch of messages to Label Studio, and pull the labels."""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.errors import first_few, quote
from feedsieve.settings import in_sample_folder
from feedsieve.store.database import without_password
from feedsieve.store.store import MessageStore
from labeling import server
from labeling.pull import FEWEST_COMMON, Merged, Pulled, pull
from labeling.push import push
from labeling.studio import TOKEN_VARIABLE, Studio
from train.data.chosen import chosen

GUIDELINE = Path("data/guideline.md")


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_command("labeling", lambda: options.run(options))


def _push(options: argparse.Namespace) -> None:
    guideline = options.guideline
    if guideline is None and GUIDELINE.exists():
        guideline = GUIDELINE
    data = chosen(may_be_new=True)
    if in_sample_folder(options.batch):
        data = replace(data, is_sample=True)
    print(f"on {options.batch}, {'of the sample chat' if data.is_sample else 'of your own data'}")
    pushed = push(Studio.open(options.url, options.token), options.batch, data, guideline)
    predictions = ", ".join(pushed.models) or "none: there is no model yet"
    print(
        f"{pushed.added:,} messages added to the project {pushed.title!r} at {options.url}, "
        f"{pushed.known:,} were there already"
    )
    if guideline:
        print(f"{guideline} is shown to annotators")
    if pushed.added:
        print(f"predictions: {predictions}")


def _pull(options: argparse.Namespace) -> None:
    data = chosen(options.db, may_be_new=True)
    print(f"on {data.whose}: labels go into {without_password(data.db)}")
    studio = Studio.open(options.url, options.token)
    store = MessageStore.open(data.db)
    labeled = options.labeled or data.labels
    pulled = pull(studio, store, labeled, is_sample=data.is_sample)
    for change in pulled.merged.changed if pulled.merged else ():
        print(f"changed: {change}")
    if pulled.tied:
        tied = first_few([quote(name) for name in pulled.tied])
        print(f"left out {len(pulled.tied):,} messages on which annotators are tied: {tied}")
    for pair in pulled.agreements:
        print(pair)
    print(f"{store.location}: {pulled.stored.summary(pulled.skipped)}")
    if pulled.merged and labeled:
        _print_merged(pulled, pulled.merged, labeled)


def _print_merged(pulled: Pulled, merged: Merged, path: Path) -> None:
    if kept := [identifier for identifier in pulled.tied if identifier in merged.labels]:
        print(f"{path} keeps the earlier label of {len(kept):,} of the tied messages")
    if merged.other_text:
        other = first_few([quote(name) for name in merged.other_text])
        print(f"left out {len(merged.other_text):,} with another text in {path}: {other}")
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
        " own, with reasons and similar messages next to each message.",
    )
    pushing.add_argument("batch", type=Path, metavar="BATCH.csv")
    pushing.add_argument(
        "--guideline",
        type=Path,
        metavar="FILE",
        help="what is positive and what is not, as text; Label Studio shows it to annotators"
        f" ({GUIDELINE}, if there is one)",
    )
    pushing.set_defaults(run=_push)
    pulling = commands.add_parser(
        "pull",
        parents=[where],
        help="store the labels",
        description="Store every label in the message store, with annotator and time; those of an"
        " audit as ground truth. With a file, or if there is one beside the store in use, merge the"
        " labels by majority into that CSV with msg_id,msg,label as well; rows that are not in"
        " Label Studio stay. A second run changes nothing. Prints the agreement of annotators who"
        f" share at least {FEWEST_COMMON} messages.",
    )
    pulling.add_argument("labeled", type=Path, nargs="?", metavar="LABELED.csv")
    pulling.add_argument("--db", metavar="MESSAGES.db", help="message store (FEEDSIEVE_DB)")
    pulling.set_defaults(run=_pull)
    return parser


if __name__ == "__main__":
    sys.exit(main())
