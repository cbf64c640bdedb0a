"""Messages in: import of large files, and `POST /messages`."""

import csv
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from feedsieve.store.migrations import upgrade
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from loadtests.harness import page
from loadtests.harness.clients import Job, load
from loadtests.harness.messages import repeating
from loadtests.harness.plan import Plan, medians
from loadtests.harness.processes import ROOT, ProgramFailed, bento, watching
from loadtests.sections.service import DIFFERENT, our_settings

CLIENTS = 8
TEXTS_A_REQUEST = 64
MIGRATED = 10_000  # messages
BASELINE = "Python's csv and sqlite3 alone"


def measure(plan: Plan) -> dict[str, Any]:
    """Return messages a second, and bytes of memory. Raises ProgramFailed, ServerTimeout."""
    count = plan.few_or_many(20_000, 1_000_000)
    texts = list(islice(repeating(plan.chat, 0), count))
    table, export = plan.folder / "chat.csv", plan.folder / "result.json"
    _write_table(table, texts)
    _write_export(export, texts)
    imports = {"CSV": _import(table, count), "Telegram's JSON": _import(export, count)}
    migrations = [_migrate(plan, texts[:MIGRATED]) for _ in range(plan.few_or_many(1, 3))]
    rounds = [_post(plan) for _ in range(plan.few_or_many(1, 3))]
    return {
        "count": count,
        "imports": imports,
        "migrated": MIGRATED,
        "migration": statistics.median(migrations),
        "baseline": count / _insert_alone(table),
        "post": medians(rounds),
    }


def render(figures: dict[str, Any], images: Path) -> str:
    """Return the section, which has no plot."""
    return page.render("messages", baseline_name=BASELINE, **figures)


def _write_table(path: Path, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["msg_id", "msg", "channel"])
        writer.writerows((number, text, "chat") for number, text in enumerate(texts))


def _write_export(path: Path, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"name": "chat", "type": "public_supergroup", "id": 7, "messages": [')
        for number, text in enumerate(texts):
            entry = {"id": number, "type": "message", "date_unixtime": "1700000000", "text": text}
            file.write(("," if number else "") + json.dumps(entry, ensure_ascii=False))
        file.write("]}")


def _import(path: Path, count: int) -> dict[str, float]:
    """Import a file into a new store by the command; return its speed and largest memory."""
    database = path.with_suffix(".db")
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "feedsieve", "import", path],
        cwd=ROOT,
        env=os.environ | {"FEEDSIEVE_DB": str(database)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with watching(process.pid) as usage:  # ru_maxrss begins with the memory of this process
        _pid, status, resources = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    store = MessageStore.open(database)
    if process.returncode or store.count() != count:
        raise ProgramFailed(f"feedsieve import {path.name} stored {store.count():,} of {count:,}")
    store.close()
    database.unlink()
    cpu = resources.ru_utime + resources.ru_stime
    return {"speed": count / seconds, "cpu": count / cpu, "rss": usage.largest_rss}


def _insert_alone(table: Path) -> float:
    """Return the seconds of reading a table and inserting its rows without looking at them."""
    database = table.with_suffix(".alone.db")
    started = time.monotonic()
    connection = sqlite3.connect(database)
    with table.open(encoding="utf-8", newline="") as file, connection:
        connection.execute("CREATE TABLE messages (id TEXT PRIMARY KEY, text TEXT, channel TEXT)")
        rows = csv.reader(file)
        next(rows)
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)
    connection.close()
    seconds = time.monotonic() - started
    database.unlink()
    return seconds


def _migrate(plan: Plan, texts: list[str]) -> float:
    """Return the seconds of opening a store of the first revision, with a score for each text."""
    database = plan.folder / f"earlier{plan.next_run()}.db"
    now = "2024-05-01 12:00:00"
    rows = [(str(number), text, now, fingerprint(text), now) for number, text in enumerate(texts)]
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        upgrade(connection, "1")
        statement = (
            "INSERT INTO messages (id, text, time, fingerprint, seen_at) VALUES (?, ?, ?, ?, ?)"
        )
        connection.exec_driver_sql(statement, rows)
        scores = [("earlier", key, 0.5) for key in {row[3] for row in rows}]
        connection.exec_driver_sql("INSERT INTO scores VALUES (?, ?, ?)", scores)
    engine.dispose()
    started = time.monotonic()
    store = MessageStore.open(database)
    seconds = time.monotonic() - started
    if store.count() != len(texts):
        raise ProgramFailed(f"{store.count():,} of {len(texts):,} messages were migrated")
    store.close()
    return seconds


def _post(plan: Plan) -> dict[str, Any]:
    """Return messages a second of `/score` and of `POST /messages` on the same server."""
    settings = our_settings(plan, DIFFERENT)
    settings["FEEDSIEVE_DB"] = str(plan.folder / f"posted{plan.next_run()}.db")
    with bento(plan.folder / "post.log", settings, ready="/feed") as server:
        job = Job(
            url=server.url,
            seconds=plan.few_or_many(3.0, 20.0),
            warm_up=plan.few_or_many(1.0, 5.0),
            clients=CLIENTS,
            texts=list(plan.texts),
            texts_a_request=TEXTS_A_REQUEST,
            run=plan.next_run(),
        )
        scored = load(job)
        posting = replace(job, run=plan.next_run(), paths=["/messages"], as_messages=True)
        posted = load(posting)
    return {
        "score": scored.throughput * TEXTS_A_REQUEST,
        "messages": posted.throughput * TEXTS_A_REQUEST,
        "failures": scored.failures | posted.failures,
    }
