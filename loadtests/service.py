"""How fast `/score` answers over HTTP, ours and peers', and what of the engine is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve.text import plain
from loadtests import page, plots
from loadtests.alone import alone
from loadtests.baselines import Baselines
from loadtests.clients import Job, Load, load
from loadtests.medians import medians
from loadtests.peers.start import PEERS, NoPeer, Peer, peer
from loadtests.plan import Plan
from loadtests.server import Server, bento
from loadtests.watch import Usage, memory, watching
from train.servers import NoAnswer

OURS = "feedsieve"
CLIENTS = (1, 8, 32, 64)
BULK = 256  # texts a request


@dataclass(frozen=True)
class Workload:
    """What clients ask for. `settings` are the server's, beside those of its surroundings."""

    name: str
    stream: str = "different"
    texts_a_request: int = 1
    clients: tuple[int, ...] = CLIENTS
    settings: Mapping[str, str] = field(default_factory=dict)


# Every text is read by the encoder: nothing is remembered, and words alone answer nothing.
PLAIN = {"FEEDSIEVE_RECALLED": "0", "FEEDSIEVE_CASCADE": "0"}
DIFFERENT = Workload("different", settings=PLAIN)
REPEATING = Workload("repeating", stream="repeating")
IN_BULK = Workload("bulk", texts_a_request=BULK, clients=(1, 8), settings=PLAIN)
WORKLOADS = (DIFFERENT, REPEATING, IN_BULK)  # of our server
REPEATING_TO_PEERS = replace(REPEATING, clients=(32,))  # beside the first of these

Runs = dict[str, list[dict[str, Any]]]  # what was seen of a server, by the number of clients


def measure(plan: Plan, of: Baselines) -> dict[str, Any]:
    """Return the figures of every server. Raises Failed, and NoAnswer for ours."""
    rounds = plan.few_or_many(1, 3)
    runs: dict[str, Runs] = {}
    unavailable: dict[str, str] = {}
    loops: dict[str, list[dict[str, float]]] = {}
    loads = sum(len(workload.clients) for workload in WORKLOADS)
    loads += len(PEERS) * (len(CLIENTS) + len(REPEATING_TO_PEERS.clients))
    with tqdm(total=rounds * (loads + 2), desc="service", unit="load") as progress:
        for _ in range(rounds):
            for workload in WORKLOADS:
                settings = empty_store(plan) | dict(workload.settings)
                with bento(plan.folder / f"{workload.name}.log", settings) as server:
                    seen = runs.setdefault(workload.name, {})
                    _visit(plan, server, workload, seen, progress)
            for batch in (max(CLIENTS), BULK):
                seconds = plan.few_or_many(1.0, 10.0)
                gives = alone(plan.model, plan.texts, plan.next_run(), batch, seconds)
                loops.setdefault(str(batch), []).append(gives)
                progress.update()
            for which in PEERS:
                try:
                    if which.name not in unavailable:
                        _visit_peer(plan, which, of, runs, progress)
                except (NoPeer, NoAnswer) as error:
                    unavailable[which.name] = str(error)
    return {
        "rounds": rounds,
        "served": plan.served,
        "max_tokens": of.max_tokens,
        "servers": {
            name: {clients: medians(loads) for clients, loads in by_clients.items()}
            for name, by_clients in runs.items()
        },
        "unavailable": unavailable,
        "alone": {batch: medians(rates) for batch, rates in loops.items()},
    }


def _visit_peer(
    plan: Plan, which: Peer, of: Baselines, runs: dict[str, Runs], progress: tqdm
) -> None:
    """Start a peer and load it. Raises NoPeer and NoAnswer."""
    workloads = {which.name: DIFFERENT, _repeating(which): REPEATING_TO_PEERS}
    with peer(which, of, plan.folder / f"{which.name}.log") as server:
        for name, workload in workloads.items():
            seen = runs.setdefault(name, {})
            _visit(plan, server, workload, seen, progress, **which.asked(of))


def empty_store(plan: Plan) -> dict[str, str]:
    """Return settings of our server with no messages, so that nothing else is scored meanwhile."""
    return {"FEEDSIEVE_MODEL": plan.model, "FEEDSIEVE_DB": str(plan.folder / "empty.db")}


def _visit(
    plan: Plan,
    server: Server,
    workload: Workload,
    found: Runs,
    progress: tqdm,
    **asked: Any,
) -> None:
    """Load a server with each number of clients, and add what was seen to `found`."""
    at_start, _rss = memory(server.pid)
    for clients in workload.clients:
        job = score_job(plan, server, workload, clients, **asked)
        with watching(server.pid) as usage:
            said = load(job)
        record = _record(said, usage, job) | {"start_pss": at_start}
        found.setdefault(str(clients), []).append(record)
        progress.update()


def score_job(plan: Plan, server: Server, workload: Workload, clients: int, **asked: Any) -> Job:
    """Return what the clients of a workload do, with texts that no run before had.

    `asked` says how, if it is not as our server wants it: fields of `Job`.
    """
    texts = plan.chat if workload.stream == "repeating" else plan.texts
    texts = list(map(plain, texts))  # as our encoder reads them, so that all read the same
    return Job(
        url=server.url,
        seconds=plan.few_or_many(2.0, 15.0),
        warm_up=plan.few_or_many(1.0, 5.0),
        clients=clients,
        texts=texts,
        stream=workload.stream,
        texts_a_request=workload.texts_a_request,
        run=plan.next_run(),
        **asked,
    )


def _record(said: Load, usage: Usage, job: Job) -> dict[str, Any]:
    """Return what one run showed: rates a second, latencies in ms, sizes in bytes, cores."""
    success = said.success
    return {
        "messages_a_second": said.throughput * job.texts_a_request,
        "p50": success and success.p50,
        "p95": success and success.p95,
        "p99": success and success.p99,
        "failures": said.failures,
        "client_cpu": said.client_cpu,
        "server_cpu": usage.cpu / (job.seconds + job.warm_up),
        "largest_pss": usage.largest_pss,
        "largest_rss": usage.largest_rss,
    }


def section(found: dict[str, Any]) -> str:
    """Return the section of the page. Ratios are ours to a peer's, at as many clients."""
    servers = found["servers"]
    served = f"{OURS}, {found['served']}"
    titles = {DIFFERENT.name: served} | {which.name: which.title for which in PEERS}
    rows = []
    for name, title in titles.items():
        if name in found["unavailable"]:
            rows.append([title, *["–"] * 9, found["unavailable"][name]])
            continue
        for clients, one in servers[name].items():
            rows.append([title, clients, *_cells(one), _ratio(servers, clients, name)])
    single = page.table((*HEAD, "ours to it"), rows)
    loops = found["alone"]
    shares = [
        _share("64 clients × 1 message", servers["different"]["64"], loops["64"]),
        *(
            _share(
                f"{clients} client{'s' * (clients != '1')} × {BULK} messages", one, loops[str(BULK)]
            )
            for clients, one in servers["bulk"].items()
        ),
    ]
    repeating = [
        [clients, *_cells(one), _ratios_to_peers(servers, one, clients) or "–"]
        for clients, one in servers["repeating"].items()
    ]
    return f"""## Service

`POST /score` in a closed loop: each client has one request in flight, and the clients run in a
process of their own on the same cores. Medians of {found["rounds"]} rounds, for each of which every
server is started anew. Peers run the 12-layer encoder in 32 bits and, in place of the classifier,
nothing or one product; all get texts as our encoder reads them, cut after {found["max_tokens"]}
tokens. Memory is what all processes of the server take together (PSS), the largest seen.

### One message a request, each different from all others

Without cascade and without remembered scores: the encoder reads every message.

{single}

![Messages a second by the number of clients, feedsieve and its peers](images/service.svg)

### One message a request, repeating as the chat does

As it is by default, with the cascade and with remembered scores.

{page.table((*HEAD[1:], "ours to peers"), repeating)}

### What is left of the engine

The same kind of messages in a loop without a server, in batches of as many as there are clients, or
as there are in a request: messages a second of the encoder, and with the classifier, and what the
service gives of that.

{page.table(ALONE_HEAD, shares)}
"""


HEAD = (
    "server", "clients", "messages a second", "p50, ms", "p95, ms", "p99, ms", "failed",
    "memory at start, MiB", "under load, MiB", "cores, server + clients",
)  # fmt: skip
ALONE_HEAD = (
    "clients × messages a request", "service", "encoder", "of it", "encoder and classifier",
    "of it",
)  # fmt: skip


def _cells(one: dict[str, Any]) -> list[str]:
    failures = ", ".join(f"{count} × {status}" for status, count in one["failures"].items())
    return [
        *(page.figure(one[name]) for name in ("messages_a_second", "p50", "p95", "p99")),
        failures or "0",
        page.mebibytes(one["start_pss"]),
        page.mebibytes(one["largest_pss"]),
        f"{one['server_cpu']:.2f} + {one['client_cpu']:.2f}",
    ]


def _ratio(servers: dict[str, Any], clients: str, name: str) -> str:
    if name == DIFFERENT.name:
        return ""
    return _times(servers[DIFFERENT.name][clients], servers[name][clients])


def _ratios_to_peers(servers: dict[str, Any], one: dict[str, Any], clients: str) -> str:
    return ", ".join(
        f"{which.name} {_times(one, servers[_repeating(which)][clients])}"
        for which in PEERS
        if clients in servers.get(_repeating(which), {})
    )


def _repeating(which: Peer) -> str:
    """Return under which name the figures of a peer with repeating messages are."""
    return f"{which.name}, repeating"


def _times(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    if not theirs["messages_a_second"]:
        return "–"
    return f"{ours['messages_a_second'] / theirs['messages_a_second']:.1f}"


def _share(what: str, one: dict[str, Any], alone: dict[str, float]) -> list[str]:
    rate = one["messages_a_second"]
    shares = ((alone[name], rate / alone[name]) for name in ("encoder", "scorer"))
    cells = [(page.figure(of), f"{100 * share:.0f} %") for of, share in shares]
    return [what, page.figure(rate), *(cell for pair in cells for cell in pair)]


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plot of messages a second by the number of clients. Raises OSError."""
    titles = {DIFFERENT.name: OURS, REPEATING.name: f"{OURS}, repeating as the chat does"}
    titles |= {which.name: which.title for which in PEERS}
    lines = {
        title: {
            int(clients): one["messages_a_second"]
            for clients, one in found["servers"].get(name, {}).items()
        }
        for name, title in titles.items()
    }
    plots.lines(folder / "service.svg", lines, "clients", "messages a second")
