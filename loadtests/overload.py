"""What becomes of twice the load that the server can bear, and of the server afterwards."""

import time
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from feedsieve import models
from loadtests import page
from loadtests.clients import Load, load
from loadtests.plan import Failed, Plan
from loadtests.server import bento
from loadtests.service import DIFFERENT, empty_store, score_job
from loadtests.watch import memory, watching

CLIENTS = 64  # whose throughput is taken for what the server can bear
TIMES = 2
REFUSALS = ("429", "503")


def measure(plan: Plan) -> dict[str, Any]:
    """Return what was seen before, during and after it. Raises NoModel, NoAnswer, Failed."""
    models.find_pair(plan.model)
    log = plan.folder / "overload.log"
    with (
        bento(log, empty_store(plan) | dict(DIFFERENT.settings)) as server,
        tqdm(total=3, desc="overload", unit="load") as progress,
    ):

        def closed_loop() -> Load:
            said = load(score_job(plan, server, DIFFERENT, CLIENTS))
            progress.update()
            return said

        before, memory_before = closed_loop(), memory(server.pid)[0]
        if not before.throughput:
            raise Failed(f"{CLIENTS} clients got no answer: {before.failures}")
        job = replace(
            score_job(plan, server, DIFFERENT, CLIENTS),
            rate=TIMES * before.throughput,
            seconds=plan.few_or_many(10.0, 60.0),
            warm_up=0.0,
        )
        with watching(server.pid) as usage:
            during = load(job)
        progress.update()
        memory_after = memory(server.pid)[0]
        time.sleep(plan.few_or_many(1.0, 5.0))
        after = closed_loop()
    sent = sum(latency.requests for latency in during.by_status.values())
    return {
        "rate": job.rate,
        "seconds": job.seconds,
        "sent": sent,
        "retry_after": during.retry_after,
        "by_status": {status: vars(latency) for status, latency in during.by_status.items()},
        "capacity": _said(before),
        "after": _said(after),
        "memory": {
            "before": memory_before,
            "largest": usage.largest_pss,
            "after": memory_after,
        },
    }


def _said(calm: Load) -> dict[str, Any]:
    p99 = calm.success.p99 if calm.success else None
    return {"a_second": calm.throughput, "p99": p99, "failures": calm.failures}


def section(found: dict[str, Any]) -> str:
    """Return the section of the page."""
    rows = [
        [
            f"{_meaning(status)} ({status})",
            page.figure(100 * one["requests"] / found["sent"]) + " %",
            page.figure(one["requests"] / found["seconds"]),
            *(page.figure(one[name]) for name in ("p50", "p95", "p99")),
        ]
        for status, one in found["by_status"].items()
    ]
    capacity, after = found["capacity"], found["after"]
    accepted = found["by_status"].get("200")
    times = accepted["p99"] / capacity["p99"] if accepted and capacity["p99"] else None
    sizes = found["memory"]
    return f"""## Overload

Requests of one message come at {TIMES} times the rate that {CLIENTS} clients in a closed loop got
answered, {page.figure(found["rate"])} a second for {found["seconds"]:.0f} seconds, whatever becomes
of those before. Latencies count from the moment a request was due.

{page.table(("answer", "of all", "a second", "p50, ms", "p95, ms", "p99, ms"), rows)}

- p99 of what was accepted is {page.figure(times)} times that at capacity
  ({page.figure(capacity["p99"])} ms); {found["retry_after"]:,} answers said when to try again.
- Memory before, largest and after: {page.mebibytes(sizes["before"])},
  {page.mebibytes(sizes["largest"])} and {page.mebibytes(sizes["after"])} MiB.
- {CLIENTS} clients in a closed loop: {page.figure(capacity["a_second"])} a second before,
  {page.figure(after["a_second"])} afterwards, p99 {page.figure(after["p99"])} ms.
"""


def _meaning(status: str) -> str:
    if status == "200":
        return "accepted"
    return "refused" if status in REFUSALS else "failed"
