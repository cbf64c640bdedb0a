"""`feedsieve labels`: labels of people into the store, out of it, and how far they agree."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from feedsieve.agreement import agreements
from feedsieve.command import FAILED
from feedsieve.csv_writing import csv_writer
from feedsieve.errors import FeedsieveError
from feedsieve.files import open_atomically
from feedsieve.known_store import known_store
from feedsieve.message import Message, StoreUnavailable
from feedsieve.settings import settings
from feedsieve.sources.keys import file_key, given_key, shown_key, title_of
from feedsieve.sources.labels.files import Defaults, read_labels
from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.sources.labels.words import WITHDRAWN
from feedsieve.sources.report import ReadReport
from feedsieve.sources.unpack import STDIN, shown, unpacked
from feedsieve.store.labels import ResolvedLabel, by_person
from feedsieve.store.store import MessageStore

COLUMNS = ("msg_id", "source", "msg", "label", "who", "time", "origin", "note", "ground_truth")
"""The columns of an export, which `labels import` reads."""

_FILE = click.Path(path_type=Path)


@click.group()
def labels() -> None:
    """Labels of people: import, export, agreement.

    Labels are in the store at FEEDSIEVE_DB. Each has a person and a time. A message's label is that
    of the majority, each person by the last one; ground truth comes first.
    """


@labels.command("import")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--who",
    metavar="NAME",
    help="Who gave labels without an annotator.  [default: the file's name]",
)
@click.option(
    "--source",
    metavar="NAME",
    help="The source of messages whose file does not name it.  [default: the one that has them, or"
    " else the file's name]",
)
@click.option("--positive", metavar="WORD", multiple=True, help="Another word for positive.")
@click.option("--negative", metavar="WORD", multiple=True, help="Another word for negative.")
def import_labels(
    paths: tuple[Path, ...],
    who: str | None,
    source: str | None,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
) -> int:
    """Import labels.

    A FILE is CSV with msg_id,msg,label and optionally source, who, time, origin and note; the same
    as JSON or JSON Lines; an export of Label Studio (JSON, JSON-MIN, CSV, TSV) or doccano. Messages
    that the store does not have are added. Each file is imported completely or not at all.
    Importing it again changes nothing. The exit code is 1 if a file cannot be read or has no label;
    the others are imported all the same.
    """
    words = dict.fromkeys(map(_word, positive), True) | dict.fromkeys(map(_word, negative), False)
    store = MessageStore.open(settings().db_to_fill)
    bad = []
    for path in paths:
        report = ReadReport()
        try:
            with unpacked(path, report) as files:
                for file in files:
                    name = str(path) if len(files) == 1 else f"{path}/{file.name}"
                    whole = file if path == STDIN or not path.name else path
                    defaults = Defaults((who or "").strip() or whole.name, whole.name, words)
                    if not _import_file(store, file, name, defaults, file_key(whole), source):
                        bad.append(name)
        except StoreUnavailable:
            raise
        except FeedsieveError as error:
            bad.append(str(path))
            click.echo(f"feedsieve: {error}", err=True)
        for note in report.notes:
            click.echo(f"  {note}")
    if bad and len(paths) > 1:
        click.echo(f"feedsieve: not imported: {', '.join(bad)}", err=True)
    return FAILED if bad else 0


@labels.command("export")
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--resolved", is_flag=True, help="One row a message, with the label that counts.")
def export_labels(path: Path, resolved: bool) -> None:
    """Export labels as CSV.

    The columns are msg_id,source,msg,label,who,time,origin,note,ground_truth, where msg_id is the
    identifier in the source. `feedsieve labels import` reads the file; of one with --resolved,
    `python -m train --data` trains.
    """
    store = known_store()
    if resolved:
        found = store.labels()
        rows = [_resolved_row(each) for each in found if each.label]
        left_out, reason = len(found) - len(rows), "messages on which people are tied"
    else:
        given = store.labelled_messages()
        rows = [_row(each) for each in given if each.message.text]
        left_out, reason = len(given) - len(rows), "labels of texts that the store never had"
    with open_atomically(path) as file:
        table = csv_writer(file)
        table.writerow(COLUMNS)
        table.writerows(rows)
    outcome = f"{path}: {len(rows):,} {'messages' if resolved else 'labels'}"
    click.echo(f"{outcome}; left out {left_out:,} {reason}" if left_out else outcome)


@labels.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def agreement(as_json: bool) -> None:
    """Print how far each pair of people agree.

    That is the share of the messages labelled by both with the same label, and Cohen's kappa: 0 is
    agreement by chance, 1 always. The last label of each person counts.
    """
    found = known_store().labels()
    pairs = agreements(by_person(found))
    tied = sum(resolved.label is None for resolved in found)
    if as_json:
        rows = [
            asdict(pair) | {"kappa": None if math.isnan(pair.kappa) else pair.kappa}
            for pair in pairs
        ]
        click.echo(json.dumps({"messages": len(found), "tied": tied, "pairs": rows}))
        return
    for pair in pairs:
        click.echo(str(pair))
    if not pairs:
        click.echo("no two people have labelled the same message")
    click.echo(f"{len(found):,} messages are labelled; people are tied on {tied:,}")


def _import_file(
    store: MessageStore, file: Path, name: str, defaults: Defaults, key: str, source: str | None
) -> bool:
    """Import one file and print a line; return whether it could be imported.

    Messages have the source that the file names, or else `source`, or else `key`.
    """
    report = ReadReport()
    try:
        given = read_labels(file, report, defaults)
        if source and source.strip():
            given = [replace(each, message=_with_source(each.message, source)) for each in given]
        outcome = store.import_labels(given, key)
    except StoreUnavailable:
        raise
    except FeedsieveError as error:
        reason = shown(str(error)).replace(str(file), name)
        reason = reason if name in reason else f"{name}: {reason}"
        click.echo(f"feedsieve: {reason}", err=True)
        return False
    click.echo(f"{name}: {outcome.summary(report.skipped)}")
    for note in report.notes:
        click.echo(f"  {note}")
    return True


def _with_source(message: Message, source: str) -> Message:
    if message.source:
        return message
    key = given_key(source)
    return replace(message, source=key, channel=title_of(key))


def _word(word: str) -> str:
    return word.strip().lower()


def _row(labelled: LabelledMessage) -> Sequence[str]:
    message = labelled.message
    return (
        message.id,
        shown_key(message.source),
        message.text,
        labelled.label or WITHDRAWN,
        labelled.who,
        labelled.time.isoformat() if labelled.time else "",
        labelled.origin,
        labelled.note or "",
        "1" if labelled.is_ground_truth else "",
    )


def _resolved_row(resolved: ResolvedLabel) -> Sequence[str]:
    message, votes = resolved.message, resolved.deciding
    times = [vote.time for vote in votes if vote.time]

    def joined(values: Sequence[str | None]) -> str:
        return ", ".join(dict.fromkeys(value for value in values if value))

    return (
        resolved.source_id if message.source else message.id,
        shown_key(message.source),
        message.text,
        resolved.label or "",
        joined([vote.who for vote in votes]),
        max(times).isoformat() if times else "",
        joined([vote.origin for vote in votes]),
        joined([vote.note for vote in votes]),
        "1" if any(vote.is_ground_truth for vote in votes) else "",
    )
