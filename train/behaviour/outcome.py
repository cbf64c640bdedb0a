"""The outcome of behavioural tests, as text and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

AT_MOST = {"mean move", "largest move"}  # required as upper bounds; other measures as lower


@dataclass(frozen=True)
class Case:
    """A message and its score, and the same before a change if two are compared."""

    text: str
    score: float
    text_before: str | None = None
    score_before: float | None = None

    @property
    def fall(self) -> float:
        """The score before minus the score after, -1 to 1."""
        return (self.score if self.score_before is None else self.score_before) - self.score

    def __str__(self) -> str:
        before = "" if self.score_before is None else f"{self.score_before:.3f} → "
        return f"{before}{self.score:.3f}  {' '.join(self.text.split())}"


@dataclass(frozen=True)
class Check:
    """One test: required and reached measures, and the cases that failed.

    Moves and falls are differences of scores, -1 to 1; other measures are shares of the `cases`.
    A measure without a requirement is only shown.
    """

    kind: str
    name: str
    cases: int
    required: Mapping[str, float]
    reached: Mapping[str, float]
    failures: Sequence[Case]

    @property
    def passed(self) -> bool:
        return all(
            self.reached[measure] <= bound if measure in AT_MOST else self.reached[measure] >= bound
            for measure, bound in self.required.items()
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{measure} {figure:.3f}{self._bound(measure)}"
            for measure, figure in self.reached.items()
        )

    def _bound(self, measure: str) -> str:
        if measure not in self.required:
            return ""
        return f" ({'≤' if measure in AT_MOST else '≥'} {self.required[measure]:.2f})"


@dataclass(frozen=True)
class Outcome:
    """All checks of one model, and the number of texts scored."""

    checks: Sequence[Check]
    threshold: float
    texts: int

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    @property
    def passed(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        """Return a line for each check, then the cases of failed checks."""
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"{'ok' if check.passed else 'FAIL':4}  {check.kind:13}  {check.name:{width}}  "
            f"{check.cases:2} cases: {check}"
            for check in self.checks
        ]
        for check in self.failed:
            lines += ["", f"{check.kind}, {check.name}:", *(f"  {case}" for case in check.failures)]
        passed = len(self.checks) - len(self.failed)
        return "\n".join([*lines, "", f"{passed} of {len(self.checks)} checks passed"])

    def as_table(self) -> dict[str, Any]:
        """Return the outcome for JSON: a row for each check, with its failed cases."""
        return {
            "passed": self.passed,
            "threshold": self.threshold,
            "texts": self.texts,
            "checks": [asdict(check) | {"passed": check.passed} for check in self.checks],
        }
