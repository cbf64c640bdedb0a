"""Throughput of `/score` over HTTP, ours and peers', and behaviour under twice its capacity."""

import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from feedsieve.scoring import model_store
from feedsieve.text import plain
from loadtests.harness import page
from loadtests.harness.clients import Job, load
from loadtests.harness.engine import rates_without_server
from loadtests.harness.plan import Plan, medians
from loadtests.harness.processes import (
    ProgramFailed,
    Server,
    ServerTimeout,
    bento,
    in_new_process,
    memory,
    watching,
)
from loadtests.peers.start import PEERS, Peer, PeerUnavailable, peer

CLIENTS = (1, 8, 32, 64)
BULK = 256  # texts a request
CAPACITY_CLIENTS = 64  # their throughput counts as capacity
OVERLOAD = 2  # times the capacity
# The encoder reads every text: neither the score cache nor the cascade answers.
PLAIN = {"FEEDSIEVE_RECALLED": "0", "FEEDSIEVE_CASCADE": "0"}


class Workload(NamedTuple):
    """Requests of the clients, and settings of our server for them."""

    clients: tuple[int, ...] = CLIENTS
    stream: str = "different"
    texts_a_request: int = 1
    settings: dict[str, str] = PLAIN


DIFFERENT = Workload()
REPEATING = Workload(stream="repeating", settings={})
BULKS = Workload((1, 8), texts_a_request=BULK)
WORKLOADS = {"different": DIFFERENT, "repeating": REPEATING, "bulk": BULKS}  # of our server
PEER_WORKLOADS = {"": DIFFERENT, ", repeating": REPEATING._replace(clients=(32,))}


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures of every server. Raises ProgramFailed, and ServerTimeout for ours."""
    measurement, rounds = _Measurement(plan), plan.few_or_many(1, 3)
    for _ in range(rounds):
        measurement.run()
    servers = {
        name: {clients: medians(loads) for clients, loads in by_clients.items()}
        for name, by_clients in measurement.runs.items()
    }
    alone = {batch: medians(rates) for batch, rates in measurement.alone.items()}
    about = {"served": plan.served, "max_tokens": plan.baselines.description.max_tokens}
    figures = {"servers": servers, "alone": alone, "unavailable": measurement.unavailable}
    return {"rounds": rounds} | about | figures


class _Measurement:
    """Loads of our server, of the engine without a server, and of peers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runs: dict[str, Any] = defaultdict(lambda: defaultdict(list))  # by server and clients
        self.alone: dict[str, list[dict[str, float]]] = defaultdict(list)  # by batch
        self.unavailable: dict[str, str] = {}  # reasons by peer

    def run(self) -> None:
        plan, least = self.plan, self.plan.few_or_many(1.0, 10.0)
        for name, workload in WORKLOADS.items():
            with bento(plan.folder / f"{name}.log", our_settings(plan, workload)) as server:
                self._load(server, name, workload)
        for batch in (max(CLIENTS), BULK):
            arguments = (plan.model, plan.texts, plan.next_run(), batch, least)
            self.alone[str(batch)].append(in_new_process(rates_without_server, *arguments))
        for candidate in PEERS:
            if candidate.name not in self.unavailable:
                self._load_peer(candidate)

    def _load_peer(self, candidate: Peer) -> None:
        baselines, log = self.plan.baselines, self.plan.folder / f"{candidate.name}.log"
        try:
            with peer(candidate, baselines, log) as server:
                for suffix, workload in PEER_WORKLOADS.items():
                    fields = candidate.job_fields(baselines)
                    self._load(server, candidate.name + suffix, workload, **fields)
        except (PeerUnavailable, ServerTimeout) as error:
            self.unavailable[candidate.name] = str(error)

    def _load(self, server: Server, name: str, workload: Workload, **fields: Any) -> None:
        """Load a server with each number of clients."""
        start_pss, _rss = memory(server.pid)
        for clients in tqdm(workload.clients, name, unit="load"):
            job = score_job(self.plan, server, workload, clients, **fields)
            with watching(server.pid) as usage:
                result = load(job)
            record = result.figures | {
                "messages_a_second": result.throughput * job.texts_a_request,
                "server_cpu": usage.cpu / (job.seconds + job.warm_up),  # cores
                "largest_pss": usage.largest_pss,
                "largest_rss": usage.largest_rss,
                "start_pss": start_pss,
            }
            self.runs[name][str(clients)].append(record)


def our_settings(plan: Plan, workload: Workload = DIFFERENT) -> dict[str, str]:
    """Return settings of our server with an empty store, so that no backfill runs."""
    database = str(plan.folder / "empty.db")
    return {"FEEDSIEVE_MODEL": plan.model, "FEEDSIEVE_DB": database} | workload.settings


def score_job(plan: Plan, server: Server, workload: Workload, clients: int, **fields: Any) -> Job:
    """Return the job of a workload, with new texts; `fields` adapt it to a peer."""
    texts = plan.chat if workload.stream == "repeating" else plan.texts
    return Job(
        url=server.url,
        seconds=plan.few_or_many(2.0, 15.0),
        warm_up=plan.few_or_many(1.0, 5.0),
        clients=clients,
        texts=list(map(plain, texts)),  # as our encoder reads them, so that all read the same
        stream=workload.stream,
        texts_a_request=workload.texts_a_request,
        run=plan.next_run(),
        **fields,
    )


def render(figures: dict[str, Any], images: Path) -> str:
    """Return the section and write its plot. Raises OSError."""
    peers, servers = {one.name: one.title for one in PEERS}, figures["servers"]
    lines = {"different": "feedsieve", "repeating": "feedsieve, repeating as in the chat"} | peers
    rates = {
        title: {int(count): one["messages_a_second"] for count, one in servers[name].items()}
        for name, title in lines.items()
        if name in servers
    }
    page.lines(images / "service.svg", rates, "clients", "messages a second")
    titles = {"different": f"feedsieve, {figures['served']}"} | peers
    return page.render("service", titles=titles, bulk=BULK, **figures)


def measure_overload(plan: Plan) -> dict[str, Any]:
    """Return the figures. Raises ModelNotFound, ServerTimeout, ProgramFailed."""
    model_store.find_pair(plan.model)
    with bento(plan.folder / "overload.log", our_settings(plan)) as server:
        before = load(score_job(plan, server, DIFFERENT, CAPACITY_CLIENTS))
        if not before.throughput:
            raise ProgramFailed(f"the server answered no client: {before.failures}")
        memory_before, _rss = memory(server.pid)
        rate, seconds = OVERLOAD * before.throughput, plan.few_or_many(10.0, 60.0)
        job = score_job(plan, server, DIFFERENT, CAPACITY_CLIENTS)
        job = replace(job, rate=rate, seconds=seconds, warm_up=0.0)
        with watching(server.pid) as usage:
            during = load(job)
        memory_after, _rss = memory(server.pid)
        time.sleep(plan.few_or_many(1.0, 5.0))
        after = load(score_job(plan, server, DIFFERENT, CAPACITY_CLIENTS))
    return {
        "rate": rate,
        "seconds": seconds,
        "sent": sum(latency.requests for latency in during.by_status.values()),
        "retry_after": during.retry_after,
        "by_status": {status: latency._asdict() for status, latency in during.by_status.items()},
        "capacity": {"a_second": before.throughput} | before.figures,
        "after": {"a_second": after.throughput} | after.figures,
        "memory": {"before": memory_before, "largest": usage.largest_pss, "after": memory_after},
    }


def render_overload(figures: dict[str, Any], images: Path) -> str:
    """Return the section, which has no plot."""
    return page.render("overload", times=OVERLOAD, clients=CAPACITY_CLIENTS, **figures)
