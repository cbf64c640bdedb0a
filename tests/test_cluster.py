import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from distributed import Client, LocalCluster
from serving import ROOT

import feedsieve.__main__ as command
from feedsieve.bulk import NoEngine, score_file
from feedsieve.models import load_scorer
from feedsieve.tables import Part
from train import cluster
from train.cluster import ClusterScorer, Sent, connect, workers_of

MODEL = "feedsieve-classifier:latest"
PARTS = [
    Part(number, [f"Сдаётся квартира {number}.{row} в Лимассоле" for row in range(40)], None)
    for number in range(12)
]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def nothing(_done: int) -> None:
    pass


@contextmanager
def two_workers() -> Iterator[Client]:
    """Yield a cluster of two workers here, and leave the environment as it was."""
    before = dict(os.environ)
    try:
        with connect("local:2") as client:
            yield client
    finally:
        for name in os.environ.keys() - before:  # Dask leaves OMP_NUM_THREADS=1, for its workers
            del os.environ[name]


@pytest.fixture(scope="module")
def client(trained) -> Iterator[Client]:
    with two_workers() as client:
        yield client


@pytest.fixture(scope="module")
def expected(trained) -> np.ndarray:
    scorer = load_scorer(MODEL, 1)
    return np.stack([scorer.score(part.texts) for part in PARTS])


class TestEnding:
    @pytest.fixture(autouse=True)
    def _stumbling(self, monkeypatch) -> None:
        """Let Dask end as it does when a worker is just being started in place of a dead one."""
        close = LocalCluster.close

        def stumble(self: LocalCluster, *arguments: object, **named: object) -> None:
            close(self, *arguments, **named)
            raise AssertionError("can only join a started process")

        monkeypatch.setattr(LocalCluster, "close", stumble)

    def test_what_was_computed_is_there(self):
        with two_workers() as client:
            found = client.submit(sum, [1, 2]).result()
        assert found == 3

    def test_what_went_wrong_before_is_what_is_told(self):
        with pytest.raises(NoEngine, match="workers died"), two_workers():
            raise NoEngine("workers died")


class TestScoring:
    def test_every_part_once_and_as_this_process_scores_it(self, client, expected):
        scorer, done = ClusterScorer(client, MODEL), []
        scored = list(scorer.score_parts(PARTS, done.append))
        assert sorted(part.number for part, _scores in scored) == list(range(len(PARTS)))
        for part, scores in scored:
            assert scores == pytest.approx(expected[part.number], abs=1e-6)
        assert sum(done) == 480
        assert scorer.label(1.0) == "positive"
        scorer.close()

    def test_both_workers_take_part(self, client):
        scorer = ClusterScorer(client, MODEL)
        before = client.run(lambda dask_worker: dask_worker.state.executed_count)
        list(scorer.score_parts(PARTS, nothing))
        after = client.run(lambda dask_worker: dask_worker.state.executed_count)
        assert all(after[worker] > before[worker] for worker in after)
        scorer.close()

    def test_parts_are_read_as_they_are_needed(self, client):
        """So that memory does not grow with the file."""
        read, ahead = 0, []

        def parts() -> Iterator[Part]:
            nonlocal read
            for part in PARTS:
                read += 1
                yield part

        scorer = ClusterScorer(client, MODEL)
        for done, _scored in enumerate(scorer.score_parts(parts(), nothing)):
            ahead.append(read - done)
        assert max(ahead) <= 2 * cluster.PARTS_AHEAD
        scorer.close()

    def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(self, client, expected):
        scorer = ClusterScorer(client, MODEL)
        victim = min(client.run(os.getpid).values())
        scored = []
        for part, scores in scorer.score_parts(PARTS, nothing):
            if not scored:
                os.kill(victim, signal.SIGKILL)
            scored.append(part.number)
            assert scores == pytest.approx(expected[part.number], abs=1e-6)
        assert sorted(scored) == list(range(len(PARTS)))
        assert victim not in client.run(os.getpid).values()
        scorer.close()

    def test_workers_that_stay_away(self, monkeypatch):
        monkeypatch.setattr(cluster, "RETURN_SECONDS", 1)
        monkeypatch.setattr(cluster, "CHECK_SECONDS", 0.2)
        with connect("local:1") as client:
            sent = Sent(client, str)
            client.cluster.scale(0)
            wait_until(lambda: not workers_of(client))
            with pytest.raises(NoEngine, match="all workers of the Dask scheduler have gone"):
                list(sent.call(divmod, [("part", 1)]))

    def test_workers_forget_the_models(self, client):
        scorer = ClusterScorer(client, MODEL)
        name = scorer._pair.name
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {True}
        scorer.close()
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {False}


@contextmanager
def scheduler() -> Iterator[str]:
    """Yield the address of a cluster that runs by itself."""
    server = subprocess.Popen(
        [sys.executable, "-m", "train.cluster", "--port", "0", "--dashboard", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        line = server.stdout.readline()
        found = re.search(r"scheduler (tcp://\S+), dashboard (http://\S+)", line)
        assert found
        yield found[1]
    finally:
        server.terminate()
        server.wait(120)


class TestCommand:
    def test_a_cluster_that_runs_already(self, trained, tmp_path):
        source = tmp_path / "in.csv"
        source.write_text("msg\n" + "".join(f"{text}\n" for text in PARTS[0].texts))
        with scheduler() as address:
            done = subprocess.run(
                [sys.executable, "-m", "feedsieve", "score", source, tmp_path / "out.csv"]
                + ["--cluster", address],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr
        assert "40 scored by feedsieve-classifier:" in done.stdout
        here = tmp_path / "here.csv"
        score_file(command.InProcess(load_scorer(MODEL, 1)), source, here)
        assert (tmp_path / "out.csv").read_text() == here.read_text()

    def test_one_that_ends_meanwhile(self, trained, tmp_path, capsys):
        """What failed is told, and not that workers could not be told to forget."""
        source = tmp_path / "in.csv"
        source.write_text("msg\n" + "".join(f"{text}\n" for text in PARTS[0].texts))
        ended = threading.Event()

        class Ending(ClusterScorer):
            def score_parts(self, parts, progress):
                ended.set()
                wait_until(lambda: self._pair._client.status != "running")
                return super().score_parts(parts, progress)

        with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
            patch.setattr(cluster, "ClusterScorer", Ending)
            address = running.enter_context(scheduler())
            ender = threading.Thread(target=lambda: ended.wait(60) and running.close())
            ender.start()
            files = [str(source), str(tmp_path / "out.csv")]
            assert command.main(["score", *files, "--cluster", address]) == 1
            ender.join()
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("feedsieve: ") and "scheduler" in said

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("local:0", "is neither local:N nor"),
            ("somewhere", "is neither local:N nor"),
            ("tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
            ("nonsense://", "no Dask scheduler answers"),
        ],
    )
    def test_no_cluster(self, trained, where, said, monkeypatch):
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
        with pytest.raises(NoEngine, match=said), connect(where):
            pytest.fail("connected")

    def test_without_dask(self, trained, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(command, "entry_points", lambda group: {})
        (tmp_path / "in.csv").write_text("msg\nhello\n")
        files = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv")]
        assert command.main(["score", *files, "--cluster", "local:2"]) == 1
        assert "pip install -c constraints.txt -e '.[cluster]'" in capsys.readouterr().err
