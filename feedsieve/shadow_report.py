"""The report of a shadow: how its scores differ from the served model's, as text and for JSON."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from feedsieve.errors import FeedsieveError
from feedsieve.shadow_comparison import Comparison, Estimate, compare
from feedsieve.store.shadows import MAX_PAIRS
from feedsieve.store.store import MessageStore


class NothingCompared(FeedsieveError):
    """No text has scores by a served model and its shadow."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """A shadow, the model that it was compared with, and the result."""

    shadow: str
    served: str
    since: datetime  # of the first text
    until: datetime
    comparison: Comparison

    @classmethod
    def read(cls, store: MessageStore) -> "ShadowReport":
        """Return the report of the wanted shadow, or of the last one if none is wanted.

        Raises NothingCompared and StoreUnavailable.
        """
        wanted = store.shadow()
        tag = wanted.tag if wanted else None
        models = store.last_compared(tag)
        if models is None:
            raise NothingCompared(
                f"no text is compared with the shadow {tag} yet; servers save scores every half"
                " minute, and `feedsieve deploy` shows which of them have it"
                if tag
                else "no text is compared; `feedsieve deploy --shadow TAG` starts a comparison"
            )
        served, shadow = models
        pairs = store.pairs(served, shadow)
        times = [pair.time for pair in pairs]
        return cls(shadow, served, min(times), max(times), compare(pairs))

    def fields(self) -> dict[str, Any]:
        """Return the report as one dictionary, with the comparison's fields beside its own."""
        fields = asdict(self)
        return {**fields, **fields.pop("comparison")}

    def lines(self) -> Iterator[str]:
        """Yield the lines to print."""
        found = self.comparison
        since, until = (time.isoformat(" ", "minutes") for time in (self.since, self.until))
        at_most = f" (the newest {MAX_PAIRS:,} are kept)" if found.texts == MAX_PAIRS else ""
        yield f"shadow:            {self.shadow}"
        yield f"served:            {self.served}"
        yield f"texts:             {found.texts:,}{at_most}, {since} to {until}"
        yield f"agreement:         {as_percent(found.agreement)}"
        yield (
            f"positive:          {found.shadow_positive:.1%} by the shadow, {found.positive:.1%} by"
            f" the served model: {_as_points(found.more_positive)}"
        )
        yield (
            f"positive by one:   {found.only_shadow:,} by the shadow alone,"
            f" {found.only_served:,} by the served model alone"
        )
        yield f"shift of scores:   {_between(found.shift, '+.3f')}"
        yield (
            f"difference:        {found.mean_difference:.3f} in the mean, 90th percentile"
            f" {found.p90_difference:.3f}"
        )
        yield f"rank correlation:  {as_correlation(found.rank_correlation)}"
        yield "In parentheses are 95 % confidence intervals."
        yield ""
        yield f"{'served score':<15}{'texts':>7}{'mean':>8}{'shadow':>8}{'agreement':>11}"
        for one in found.deciles:
            yield (
                f"{one.lowest:.3f} to {one.highest:.3f} {one.texts:>6,}{one.mean:>8.3f}"
                f"{one.shadow_mean:>8.3f}{one.agreement:>11.1%}"
            )


def as_percent(share: Estimate) -> str:
    """Return a share for people, in percent with its interval."""
    return _between(share, ".1%")


def as_correlation(correlation: Estimate | None) -> str:
    """Return a rank correlation for people, with its interval."""
    if correlation is None:
        return "undefined, since all scores of a model are equal"
    return f"{_between(correlation, '.3f')}, Spearman's"


def _as_points(difference: Estimate) -> str:
    values = (100 * value for value in (difference.value, difference.low, difference.high))
    value, low, high = (f"{value:+.1f}" for value in values)
    return f"{value} points ({low} to {high})"


def _between(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
