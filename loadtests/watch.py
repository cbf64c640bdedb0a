"""What a server's processes take while something else happens: memory and processor time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

LOOK_EVERY = 0.5  # seconds


@dataclass
class Usage:
    """What all processes of a server took together since the watch began.

    PSS counts a page that processes share once, in parts; RSS counts it in each.
    """

    largest_pss: int = 0  # bytes
    largest_rss: int = 0
    cpu: float = 0.0  # seconds


def memory(pid: int) -> tuple[int, int]:
    """Return PSS and RSS of a process and all that it started, in bytes."""
    pss = rss = 0
    for process in _processes(pid):
        try:
            found = process.memory_full_info()
        except psutil.Error:  # it has just ended
            continue
        pss, rss = pss + found.pss, rss + found.rss
    return pss, rss


@contextmanager
def watching(pid: int) -> Iterator[Usage]:
    """Watch a process and all that it started; what is yielded is complete after the block."""
    usage, ended = Usage(), threading.Event()

    def look() -> None:
        while not ended.is_set():
            pss, rss = memory(pid)
            usage.largest_pss = max(usage.largest_pss, pss)
            usage.largest_rss = max(usage.largest_rss, rss)
            ended.wait(LOOK_EVERY)

    thread = threading.Thread(target=look, name="watch", daemon=True)
    before = _cpu(pid)
    thread.start()
    try:
        yield usage
    finally:
        usage.cpu = _cpu(pid) - before
        ended.set()
        thread.join()


def _cpu(pid: int) -> float:
    seconds = 0.0
    for process in _processes(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system
    return seconds


def _processes(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
