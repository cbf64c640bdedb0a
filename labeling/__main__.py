"""`python -m labeling`: a batch of messages into Label Studio, and the labels back."""

import argparse
import logging
import sys
from pathlib import Path

from feedsieve.models import NoModel
from feedsieve.settings import InvalidSettings
from labeling import server
from labeling.batch import BadBatch
from labeling.pull import FEWEST_COMMON, BadLabels, Pulled, pull
from labeling.push import push
from labeling.studio import TOKEN_VARIABLE, Studio, StudioUnavailable
from train.failures import in_one_line
from train.validation import quote, some


def main() -> int:
    """Run one command; return 0, or 1 after one line on stderr that says what failed."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    failures = (BadBatch, BadLabels, StudioUnavailable, NoModel, InvalidSettings)
    return in_one_line("labeling", lambda: options.run(options), failures)


def _push(options: argparse.Namespace) -> None:
    pushed = push(Studio.open(options.url, options.token), options.batch)
    predictions = ", ".join(pushed.models) or "none: there is no model yet"
    print(
        f"{pushed.added:,} messages are new in the project {pushed.title!r} at {options.url}, "
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
        tied = some([quote(name) for name in pulled.tied])
        print(f"annotators are tied on {len(pulled.tied):,} messages, left out: {tied}")
    if merged.other_text:
        other = some([quote(name) for name in merged.other_text])
        print(f"{len(merged.other_text):,} have another text in {path}, left as they are: {other}")
    for pair in pulled.agreements:
        kappa = "undefined" if pair.kappa != pair.kappa else f"{pair.kappa:.2f}"
        print(
            f"{pair.first} and {pair.second} agree on {pair.same:.0%} of {pair.common:,} messages, "
            f"Cohen's kappa {kappa}"
        )
    touched = merged.added + merged.confirmed + len(merged.changed)
    print(
        f"{path}: {merged.added:,} labels added, {len(merged.changed):,} changed, "
        f"{merged.confirmed:,} as they were, {len(merged.rows) - touched:,} of other messages kept"
        + ("" if pulled.is_written else "; nothing new, the file was left as it is")
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling",
        description="Bring messages into Label Studio to be labelled, and the labels back.",
    )
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--url",
        default=f"http://127.0.0.1:{server.PORT}",
        help="where Label Studio is (%(default)s)",
    )
    where.add_argument(
        "--token",
        type=Path,
        default=server.DATA / server.TOKEN_FILE,
        metavar="FILE",
        help=f"holds the API token (%(default)s); {TOKEN_VARIABLE} goes before it",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pushing = commands.add_parser(
        "push",
        parents=[where],
        help="import a batch of messages, each once",
        description="Import the messages of a CSV with msg_id,msg and perhaps score into the"
        " project feedsieve, which is made if it is not there. No text is imported twice. The"
        " current model's score is shown as a prediction. What train.audit writes goes into a"
        " project of its own, with the reason beside each message.",
    )
    pushing.add_argument("batch", type=Path, metavar="BATCH.csv")
    pushing.set_defaults(run=_push)
    pulling = commands.add_parser(
        "pull",
        parents=[where],
        help="merge the labels into a file",
        description="Merge what annotators decided into a CSV with msg_id,msg,label, by majority,"
        " with who decided and when. Again changes nothing. What is in the file and not in Label"
        f" Studio stays. Tells how far annotators agree who share {FEWEST_COMMON} messages.",
    )
    pulling.add_argument("labeled", type=Path, metavar="LABELED.csv")
    pulling.set_defaults(run=_pull)
    return parser


if __name__ == "__main__":
    sys.exit(main())
