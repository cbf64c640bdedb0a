"""Compare a challenger with the champion by the live texts that it has scored in the shadow."""

import argparse

from feedsieve.shadow_comparison import compare
from feedsieve.shadow_report import as_correlation, as_percent
from feedsieve.store.store import MessageStore
from train.evaluation.non_inferiority import Outcome
from train.tracking.challenger import Finding


def shadow_findings(
    store: MessageStore, challenger: str, champion: str | None, options: argparse.Namespace
) -> list[Finding]:
    """Return whether enough texts were compared, and whether both models agree on them.

    `challenger` and `champion` are tags of classifiers, `options` those of promote. Raises
    StoreUnavailable.
    """
    if champion is None:
        return [Finding("shadow", "no champion to compare with", Outcome.PASSED)]
    pairs = store.pairs(champion, challenger)
    wanted = options.shadow_texts
    if len(pairs) < wanted:
        result = (
            f"{len(pairs):,} of {wanted:,} live texts are compared with the champion,"
            f" {wanted - len(pairs):,} are missing; serve the champion, and compare more by"
            f" `feedsieve deploy --shadow {challenger}`"
        )
        return [Finding("shadow", result, Outcome.REJECTED)]
    found = compare(pairs)
    agreement, rank = found.agreement, found.rank_correlation
    return [
        Finding(
            "shadow agreement",
            f"{as_percent(agreement)} of decisions on {found.texts:,} live texts; at least"
            f" {options.shadow_agreement:g}%",
            _decided(100 * agreement.value >= options.shadow_agreement),
        ),
        Finding(
            "shadow rank correlation",
            f"{as_correlation(rank)}; at least {options.shadow_rank:g}",
            _decided(rank is not None and rank.value >= options.shadow_rank),
        ),
    ]


def _decided(is_enough: bool) -> Outcome:
    return Outcome.PASSED if is_enough else Outcome.REJECTED
