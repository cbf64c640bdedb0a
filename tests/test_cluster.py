import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from local_cluster import local_workers
from serving import ROOT, wait_until

from feedsieve import score_command
from feedsieve.__main__ import main
from feedsieve.bulk.score_file import ClusterUnavailable, InProcess, score_file
from feedsieve.bulk.tables import Part
from feedsieve.scoring.model_store import load_scorer
from feedsieve.settings import settings
from train.compute import dask_cluster, dask_scoring
from train.compute.dask_cluster import Broadcast, connect, count_workers
from train.compute.dask_scoring import ClusterScorer

PARTS = [
    Part(number, [f"Сдаётся квартира {number}.{row} в Лимассоле" for row in range(10)], None)
    for number in range(12)
]


def ignore(_done: int) -> None:
    pass


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_workers(2) as client:
        yield client


@pytest.fixture(scope="module")
def expected(small_pair) -> np.ndarray:
    scorer = load_scorer(small_pair, 1)
    return np.stack([scorer.score(part.texts) for part in PARTS])


class TestClosing:
    @pytest.fixture(autouse=True)
    def _close_fails(self, monkeypatch) -> None:
        """Make Dask fail to close, as it does while it is replacing a dead worker."""
        close = LocalCluster.close

        def close_and_fail(self: LocalCluster, *arguments: object, **named: object) -> None:
            close(self, *arguments, **named)
            raise AssertionError("can only join a started process")

        monkeypatch.setattr(LocalCluster, "close", close_and_fail)

    def test_failure_to_close_does_not_lose_results(self):
        with local_workers(2) as client:
            total = client.submit(sum, [1, 2]).result()
        assert total == 3

    def test_failure_to_close_does_not_hide_earlier_error(self):
        with pytest.raises(ClusterUnavailable, match="workers died"), local_workers(2):
            raise ClusterUnavailable("workers died")


class TestScoring:
    def test_every_part_is_scored_once_as_in_one_process(self, client, expected, small_pair):
        scorer, done = ClusterScorer(client, small_pair), []
        scored = list(scorer.score_parts(PARTS, done.append))
        assert sorted(part.number for part, _scores in scored) == list(range(len(PARTS)))
        for part, scores in scored:
            assert scores == pytest.approx(expected[part.number], abs=1e-6)
        assert sum(done) == 120
        assert scorer.label(1.0) == "positive"
        scorer.close()

    def test_both_workers_score(self, client, small_pair):
        scorer = ClusterScorer(client, small_pair)
        before = client.run(lambda dask_worker: dask_worker.state.executed_count)
        list(scorer.score_parts(PARTS, ignore))
        after = client.run(lambda dask_worker: dask_worker.state.executed_count)
        assert all(after[worker] > before[worker] for worker in after)
        scorer.close()

    def test_parts_are_read_lazily(self, client, small_pair):
        """Memory must not grow with the file."""
        read, ahead = 0, []

        def parts() -> Iterator[Part]:
            nonlocal read
            for part in PARTS:
                read += 1
                yield part

        scorer = ClusterScorer(client, small_pair)
        for done, _scored in enumerate(scorer.score_parts(parts(), ignore)):
            ahead.append(read - done)
        assert max(ahead) <= 2 * dask_cluster.PARTS_PER_WORKER
        scorer.close()

    def test_killed_worker_loses_and_repeats_no_part(self, client, expected, small_pair):
        scorer = ClusterScorer(client, small_pair)
        victim = min(client.run(os.getpid).values())
        scored = []
        for part, scores in scorer.score_parts(PARTS, ignore):
            if not scored:
                os.kill(victim, signal.SIGKILL)
            scored.append(part.number)
            assert scores == pytest.approx(expected[part.number], abs=1e-6)
        assert sorted(scored) == list(range(len(PARTS)))
        assert victim not in client.run(os.getpid).values()
        scorer.close()

    def test_missing_workers_end_the_run(self, monkeypatch):
        monkeypatch.setattr(dask_cluster, "RETURN_SECONDS", 1)
        monkeypatch.setattr(dask_cluster, "CHECK_SECONDS", 0.2)
        with connect("local:1") as client:
            value = Broadcast(client, str)
            client.cluster.scale(0)
            wait_until(lambda: not count_workers(client))
            with pytest.raises(
                ClusterUnavailable, match="all workers of the Dask scheduler have gone"
            ):
                list(value.map(divmod, [("part", 1)]))

    def test_models_are_removed_from_workers(self, client, small_pair):
        scorer = ClusterScorer(client, small_pair)
        name = scorer._models.name
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {True}
        scorer.close()
        held = client.run(lambda dask_worker: name in dask_worker.plugins)
        assert set(held.values()) == {False}


@contextmanager
def scheduler() -> Iterator[str]:
    """Run `python -m train.cluster`; yield the scheduler's address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "train.cluster", "--port", "0", "--dashboard", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        line = server.stdout.readline()
        match = re.search(r"scheduler (tcp://\S+), dashboard (http://\S+)", line)
        assert match
        yield match[1]
    finally:
        server.terminate()
        server.wait(120)


def test_cluster_ends_at_once_and_in_a_line():
    """Ctrl-C reaches every process of the terminal's group."""
    command = [sys.executable, "-m", "train.cluster", "--port", "0", "--dashboard", "0"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as cluster:
        assert cluster.stdout
        cluster.stdout.readline()
        cluster.stdout.readline()
        workers = psutil.Process(cluster.pid).children(recursive=True)
        started = time.monotonic()
        os.killpg(cluster.pid, signal.SIGINT)
        printed, errors = cluster.communicate(timeout=60)
    assert (cluster.returncode, printed, errors) == (0, "the cluster has ended\n", "")
    assert time.monotonic() - started < 3  # a quarter of a second on an idle machine
    assert workers and psutil.wait_procs(workers, timeout=10)[1] == []


class TestCommand:
    @pytest.fixture(autouse=True)
    def _small_model(self, small_pair, monkeypatch) -> None:
        monkeypatch.setattr(settings(), "model", small_pair)

    def test_running_cluster_scores_a_file(self, small_pair, tmp_path):
        source = tmp_path / "in.csv"
        source.write_text("msg\n" + "".join(f"{text}\n" for text in PARTS[0].texts))
        with scheduler() as address:
            done = subprocess.run(
                [sys.executable, "-m", "feedsieve", "score", source, tmp_path / "out.csv"]
                + ["--cluster", address],
                cwd=tmp_path,
                env=os.environ | {"FEEDSIEVE_MODEL": small_pair},
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr
        assert f"10 scored by {small_pair}" in done.stdout
        here = tmp_path / "here.csv"
        score_file(InProcess(load_scorer(small_pair, 1)), source, here)
        assert (tmp_path / "out.csv").read_text() == here.read_text()

    def test_stopped_scheduler_is_named(self, tmp_path, capsys):
        """The message is about the scheduler, not about the models left on workers."""
        source = tmp_path / "in.csv"
        source.write_text("msg\n" + "".join(f"{text}\n" for text in PARTS[0].texts))
        scoring = threading.Event()

        class WaitingScorer(ClusterScorer):
            def score_parts(self, parts, progress):
                scoring.set()
                wait_until(lambda: self._models._client.status != "running")
                return super().score_parts(parts, progress)

        with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
            patch.setattr(dask_scoring, "ClusterScorer", WaitingScorer)
            address = running.enter_context(scheduler())
            stopper = threading.Thread(target=lambda: scoring.wait(60) and running.close())
            stopper.start()
            files = [str(source), str(tmp_path / "out.csv")]
            assert main(["score", *files, "--cluster", address]) == 1
            stopper.join()
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("feedsieve: ") and "scheduler" in message

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ("local:0", "is neither a scheduler's tcp://HOST:PORT nor one of local:N"),
            ("somewhere", "is neither a scheduler's tcp://HOST:PORT nor one of local:N"),
            ("tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
            ("nonsense://", "no Dask scheduler answers"),
        ],
    )
    def test_unreachable_cluster_is_named(self, where, message, monkeypatch):
        monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
        with pytest.raises(ClusterUnavailable, match=message), connect(where):
            pytest.fail("connected")

    def test_missing_dask_names_the_extra(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(score_command, "entry_points", lambda group: {})
        (tmp_path / "in.csv").write_text("msg\nhello\n")
        files = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv")]
        assert main(["score", *files, "--cluster", "local:2"]) == 1
        assert "pip install -c constraints.txt -e '.[cluster]'" in capsys.readouterr().err
