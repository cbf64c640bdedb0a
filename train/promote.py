"""`python -m train.promote`: makes the challenger the champion, if it is no worse in any way."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feedsieve.files import open_whole
from feedsieve.models import NoModel
from train import command, registry
from train.behaviour.requirements import REQUIREMENTS
from train.challenge import Candidate, Finding, examine
from train.data import read_labeled
from train.registry import CHALLENGER, CHAMPION, FORMER, NoVersion, Version


def promote(options: argparse.Namespace) -> bool:
    """Move the alias champion to the challenger, unless something speaks against it; say what.

    Return whether the challenger is champion now. Raises NoVersion, NoModel, TrackingUnavailable
    and InvalidData.
    """
    frame = read_labeled(options.data)
    challenger, champion = registry.behind(CHALLENGER), registry.behind(CHAMPION)
    if challenger is None:
        raise NoVersion("there is no challenger; `python -m train` makes one")
    if champion and champion.number == challenger.number:
        print(f"version {champion.number} is the newest and champion already")
        return True
    print(
        f"challenger: {_told(challenger)}\nchampion: {_told(champion) if champion else 'none yet'}"
    )
    findings = examine(Candidate.load(challenger), _load_champion(champion), frame, options)
    print(*findings, sep="\n")
    passed = all(finding.passed for finding in findings)
    if passed:
        if champion:
            registry.move(FORMER, champion.number)
        registry.move(CHAMPION, challenger.number)
        decision = f"version {challenger.number} is champion now"
    else:
        decision = "refused: the champion stays what it is"
    print(decision)
    if options.out:
        _write_table(options.out, challenger, champion, findings, decision)
    return passed


def _load_champion(champion: Version | None) -> Candidate | None:
    """Raises NoVersion if its models are not here."""
    if champion is None:
        return None
    try:
        return Candidate.load(champion)
    except NoModel as error:
        raise NoVersion(
            f"the champion, {_told(champion)}, is not in this machine's model store, so nothing can"
            " be held against it; bring it back with `bentoml models import`, or remove the alias"
            " in MLflow (`make mlflow`), and the challenger is a first champion"
        ) from error


def roll_back() -> None:
    """Make the former champion champion again. Raises NoVersion and TrackingUnavailable."""
    champion, former = registry.behind(CHAMPION), registry.behind(FORMER)
    if champion is None or former is None or former.number == champion.number:
        raise NoVersion("there is no former champion to go back to")
    registry.move(CHAMPION, former.number)
    registry.move(FORMER, champion.number)
    print(f"champion again: {_told(former)}; before: {_told(champion)}")


def _write_table(
    path: Path,
    challenger: Version,
    champion: Version | None,
    findings: Sequence[Finding],
    decision: str,
) -> None:
    """Write what was found as Markdown, for a pull request say."""
    lines = [
        f"Challenger: {_told(challenger)}  ",
        f"Champion: {_told(champion) if champion else 'none yet'}",
        "",
        "| | what | found |",
        "|---|---|---|",
        *(
            f"| {'ok' if finding.passed else '**refused**'} | {finding.name} | {finding.said} |"
            for finding in findings
        ),
        "",
        f"{decision[0].upper()}{decision[1:]}.",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(path) as file:
        file.write("\n".join(lines) + "\n")


def _told(version: Version) -> str:
    return f"version {version.number}, {version.pair.classifier_tag}"


def main() -> int:
    """Run the command; return 0, or 1 if the challenger was refused or something failed."""
    options = _parser().parse_args()

    def work() -> int:
        if options.champion:
            champion = registry.behind(CHAMPION)
            if champion is None:
                raise NoVersion("there is no champion; `python -m train.promote` makes one")
            print(champion.pair.classifier_tag)
        elif options.rollback:
            roll_back()
        else:
            return int(not promote(options))
        return 0

    return command.run("promote", options.data, work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.promote",
        description="Compare the newest version of the registered model in MLflow, the challenger,"
        " with the champion: on what each said of messages held out from it, in behaviour, latency"
        " and size. If nothing speaks against it the alias champion moves; else it exits with 1.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/labeled_messages.csv"),
        metavar="LABELED.csv",
        help="labels that both are held against (%(default)s)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="go back to the former champion")
    what.add_argument(
        "--champion", action="store_true", help="print the champion's tag, for FEEDSIEVE_MODEL"
    )
    parser.add_argument(
        "--behave",
        choices=list(REQUIREMENTS),
        default="real",
        help="requirements of train.behave (%(default)s)",
    )
    for name, default, unit in (
        ("--margin", 1.0, "points of F1 and average precision that may be lost"),
        ("--slowest", 100.0, "milliseconds that one message may take on one thread"),
        ("--slower", 1.5, "times the champion's latency that it may take"),
        ("--largest", 250.0, "megabytes that the pair of models may take"),
    ):
        parser.add_argument(name, type=float, default=default, help=f"{unit} (%(default)g)")
    parser.add_argument("--seed", type=int, default=7, help="of the bootstrap (%(default)s)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.md", help="write what was found there as Markdown, too"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
