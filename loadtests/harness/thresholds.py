"""Thresholds of the load test."""

from collections.abc import Mapping
from typing import Any

SLOWEST = {  # p99 in ms by the request's name in the scenarios; two cores, sample model
    "/feed": 300,
    "/feed (next pages)": 300,
    "/feed (page)": 300,
    "/messages": 300,
    "/messages/{identifier}": 300,
    "/score (1 text)": 1000,
    "/score (16 texts)": 2000,
}
LEAST_A_SECOND = {"reader": 20.0, "integrator": 15.0, "mixed": 20.0}  # requests, by scenario
FAILURES = 0.0  # share of requests that may fail


def violations(
    scenario: str, routes: Mapping[str, Any], total: Any, slack: float = 1.0
) -> list[str]:
    """Return a line for each violated threshold; the machine may be `slack` times slower."""
    lines = []
    for name, seen in routes.items():
        limit = slack * SLOWEST.get(name, float("inf"))
        p99 = seen.get_response_time_percentile(0.99)
        if seen.num_requests and p99 > limit:
            lines.append(f"{name}: p99 is {p99:.0f} ms, the limit is {limit:.0f} ms")
        if seen.num_failures > FAILURES * seen.num_requests:
            lines.append(f"{name}: {seen.num_failures} of {seen.num_requests} requests failed")
    least, rate = LEAST_A_SECOND[scenario] / slack, total.total_rps
    if rate < least:
        lines.append(f"{scenario}: {rate:.1f} requests a second, the limit is {least:.1f}")
    return lines
