"""`python -m train.promote`: make the challenger champion if it is shown not to be worse."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from feedsieve.command import run_command
from feedsieve.files import open_atomically
from feedsieve.scoring.model_store import ModelNotFound
from feedsieve.settings import settings
from feedsieve.store.database import without_password
from feedsieve.store.shadows import MAX_PAIRS
from feedsieve.store.store import MessageStore
from train.behaviour.suite import suite_argument
from train.data.chosen import chosen
from train.data.labelled import read_labeled
from train.evaluation.non_inferiority import MARGIN, Outcome, worst
from train.tracking import registry
from train.tracking.challenger import Candidate, Examination, Finding
from train.tracking.registry import CHALLENGER, CHAMPION, FORMER, Version, VersionNotFound
from train.tracking.shadow_trial import shadow_findings

_EXIT_CODES = {Outcome.PASSED: 0, Outcome.REJECTED: 1, Outcome.UNDECIDED: 3}  # 2: wrong usage
_CELLS = {
    Outcome.PASSED: "ok",
    Outcome.REJECTED: "**rejected**",
    Outcome.UNDECIDED: "**undecided**",
}


def promote(options: argparse.Namespace) -> Outcome:
    """Make the challenger champion if it passes all comparisons, and print their results.

    Return PASSED if it is champion now. Raises VersionNotFound, ModelNotFound, TrackingUnavailable,
    InvalidData, and with `options.shadow` StoreUnavailable.
    """
    frame = _labels(options)
    challenger, champion = registry.behind(CHALLENGER), registry.behind(CHAMPION)
    if challenger is None:
        raise VersionNotFound("there is no challenger; `python -m train` makes one")
    if champion and champion.number == challenger.number:
        print(f"version {champion.number} is the newest and champion already")
        return Outcome.PASSED
    versions = [f"challenger: {_name(challenger)}", f"champion: {_name(champion)}"]
    print(*versions, sep="\n")
    loaded = Candidate.load(challenger), _load_champion(champion)
    findings = Examination(*loaded, frame, options).findings()
    if options.shadow:
        store = MessageStore.open(settings().db)
        tags = challenger.pair.classifier_tag, champion.pair.classifier_tag if champion else None
        findings += shadow_findings(store, *tags, options)
    print(*findings, sep="\n")
    outcome = worst([finding.outcome for finding in findings])
    if outcome is Outcome.UNDECIDED and options.accept_undecided:
        outcome = Outcome.PASSED
    if outcome is Outcome.PASSED:
        if champion:
            registry.move(FORMER, champion.number)
        registry.move(CHAMPION, challenger.number)
        decision = f"version {challenger.number} is champion now"
    else:
        decision = f"{outcome.name.lower()}: the champion is unchanged"
    print(decision)
    if options.out:
        _write_table(options.out, versions, findings, decision)
    return outcome


def _labels(options: argparse.Namespace) -> pd.DataFrame:
    """Return the labelled messages; without a file, set the options to the data in use."""
    if options.data is None:
        data = chosen()
        print(f"on {data}")
        options.data = data.labels or without_password(data.db)
        if data.is_sample and not options.behave:
            options.behave = suite_argument("sample")
        return data.read_labels()
    return read_labeled(options.data)


def roll_back() -> None:
    """Make the former champion champion again. Raises VersionNotFound and TrackingUnavailable."""
    champion, former = registry.behind(CHAMPION), registry.behind(FORMER)
    if champion is None or former is None or former.number == champion.number:
        raise VersionNotFound("there is no former champion to go back to")
    registry.move(CHAMPION, former.number)
    registry.move(FORMER, champion.number)
    print(f"champion again: {_name(former)}; before: {_name(champion)}")


def _load_champion(champion: Version | None) -> Candidate | None:
    """Raises VersionNotFound if its models are nowhere to be found, and TrackingUnavailable."""
    if champion is None:
        return None
    try:
        return Candidate.load(champion)
    except ModelNotFound as error:
        raise VersionNotFound(
            f"the champion, {_name(champion)}: {error}. Or remove its alias in MLflow"
            " (`make mlflow`) to promote the challenger as a first champion"
        ) from error


def _write_table(
    path: Path, versions: Sequence[str], findings: Sequence[Finding], decision: str
) -> None:
    """Write the findings as Markdown, for a pull request for example."""
    lines = [
        "  \n".join(f"{line[0].upper()}{line[1:]}" for line in versions),
        "",
        "| | comparison | result |",
        "|---|---|---|",
        *(
            f"| {_CELLS[finding.outcome]} | {finding.name} | {finding.result} |"
            for finding in findings
        ),
        "",
        f"{decision[0].upper()}{decision[1:]}.",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        file.write("\n".join(lines) + "\n")


def _name(version: Version | None) -> str:
    return f"version {version.number}, {version.pair.classifier_tag}" if version else "none yet"


def main() -> int:
    """Run the command; return its exit code: 1 if rejected, 3 if undecided."""
    options = _parser().parse_args()

    def work() -> int:
        if options.champion:
            print(registry.champion_tag())
        elif options.fetch:
            registry.with_tag(options.fetch).fetch()
        elif options.rollback:
            roll_back()
        else:
            return _EXIT_CODES[promote(options)]
        return 0

    return run_command("promote", work, options.data or "the labels")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.promote",
        description="Compare the challenger, the newest version of the registered model in MLflow,"
        " with the champion: out-of-fold scores, behaviour, latency, size, and with --shadow scores"
        " of live texts. If it passes, move the alias champion to it. The exit code is 1 if it is"
        " rejected, and 3 if there are too few labels to decide.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="LABELED.csv",
        help="labels to compare both models on (your own in data/ or in the message store, or else"
        " those of the sample)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--rollback", action="store_true", help="go back to the former champion")
    action.add_argument(
        "--champion",
        action="store_true",
        help="print the champion's tag, for FEEDSIEVE_MODEL, and fetch its models from MLflow if"
        " this machine's model store lacks them",
    )
    action.add_argument(
        "--fetch", metavar="TAG", help="fetch this classifier and its encoder from MLflow"
    )
    parser.add_argument(
        "--behave",
        type=suite_argument,
        metavar="FILE.toml",
        help="run train.behave with this file as its --suite; a challenger is rejected if it fails"
        " a check that the champion passes",
    )
    parser.add_argument(
        "--accept-undecided",
        action="store_true",
        help="promote it also where there are too few labels to show that it is not worse",
    )
    parser.add_argument(
        "--shadow",
        action="store_true",
        help="also demand that both agree on live texts, which the challenger has scored in the"
        " shadow of the champion: `feedsieve deploy --shadow TAG`, in the store at FEEDSIEVE_DB",
    )
    parser.add_argument(
        "--shadow-texts",
        type=_number_of_texts,
        default=1000,
        metavar="N",
        help=f"fewest live texts for --shadow, at most {MAX_PAIRS} (%(default)s)",
    )
    for name, default, limit in (
        ("--shadow-agreement", 90.0, "smallest share of equal decisions for --shadow, in percent"),
        ("--shadow-rank", 0.8, "smallest rank correlation of scores for --shadow"),
        ("--margin", MARGIN, "points of F1 and of average precision; it must lose less"),
        ("--slowest", 100.0, "largest latency of one message on one thread, in ms"),
        ("--slower", 1.5, "largest ratio to the champion's latency"),
        ("--largest", 250.0, "largest size of the pair of models, in MB"),
    ):
        parser.add_argument(name, type=_positive, default=default, help=f"{limit} (%(default)g)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the bootstrap (%(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.md", help="also write the comparison, as Markdown"
    )
    return parser


def _number_of_texts(value: str) -> int:
    number = int(value)
    if not 1 <= number <= MAX_PAIRS:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to {MAX_PAIRS}")
    return number


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
