"""What a load test must show, and which of that it did not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

SLOWEST = {  # p99 in ms by the name that the scenarios give a request; two cores, sample model
    "/feed": 300,
    "/feed (next pages)": 300,
    "/feed (page)": 300,
    "/messages": 300,
    "/messages/{identifier}": 300,
    "/score (1 text)": 1000,
    "/score (16 texts)": 2000,
}
LEAST_A_SECOND = {"reader": 20.0, "integrator": 15.0, "mixed": 20.0}  # requests, by the scenario
FAILURES = 0.0  # the largest share of requests that may fail


class Seen(Protocol):
    """What Locust has seen of one kind of request."""

    num_requests: int
    num_failures: int

    @property
    def total_rps(self) -> float: ...
    def get_response_time_percentile(self, percent: float) -> float: ...


@dataclass(frozen=True)
class Thresholds:
    """Limits of one scenario. `slack` is how many times slower the machine may be."""

    scenario: str
    slack: float = 1.0

    def broken(self, routes: Mapping[str, Seen], whole: Seen) -> list[str]:
        """Return a line for each threshold that does not hold. Times are in ms."""
        found = []
        for name, seen in routes.items():
            limit = self.slack * SLOWEST.get(name, float("inf"))
            p99 = seen.get_response_time_percentile(0.99)
            if seen.num_requests and p99 > limit:
                found.append(f"{name}: p99 is {p99:.0f} ms, at most {limit:.0f} is allowed")
            if seen.num_failures > FAILURES * seen.num_requests:
                found.append(f"{name}: {seen.num_failures} of {seen.num_requests} requests failed")
        least = LEAST_A_SECOND[self.scenario] / self.slack
        if whole.total_rps < least:
            found.append(
                f"{self.scenario}: {whole.total_rps:.1f} requests a second, at least {least:.1f}"
                " are expected"
            )
        return found
