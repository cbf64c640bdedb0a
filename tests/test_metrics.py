import gzip
import time

import pytest
from prometheus_client import REGISTRY

from feedsieve import metrics
from feedsieve.api.schemas import MAX_BODY
from feedsieve.metrics import endpoint
from feedsieve.serving.admission import AdmissionControl, Overloaded


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/feed", "/feed"),
        ("/feed/", "/feed"),
        ("/", "/"),
        ("/messages", "/messages"),
        ("/messages/", "/messages"),
        ("/messages/1", "/messages/{identifier}"),
        ("/messages/a/b", "/messages/{identifier}"),
        ("/score", "/score"),
        ("/feeds", "other"),
        ("/score/x", "other"),
        ("", "/"),
        ("//", "/"),
    ],
)
def test_every_path_maps_to_a_known_endpoint(path, expected):
    assert endpoint(path) == expected


class TestQueue:
    def sample(self, name):
        return REGISTRY.get_sample_value(f"feedsieve_queue_{name}")

    def test_requests_count_until_they_leave(self):
        with metrics.QUEUE.waiting(3):
            time.sleep(0.01)
            with metrics.QUEUE.waiting(2):
                assert (self.sample("requests"), self.sample("texts")) == (2, 5)
                assert self.sample("oldest_seconds") >= 0.01
        assert self.sample("requests") == self.sample("texts") == 0
        assert self.sample("oldest_seconds") == 0

    def test_a_failed_request_leaves(self):
        with pytest.raises(ZeroDivisionError), metrics.QUEUE.waiting(3):
            raise ZeroDivisionError
        assert self.sample("requests") == 0


class TestOverloaded:
    def test_says_which_limit_was_reached(self):
        control = AdmissionControl(requests=1, size=8, seconds=1e-9)
        for work, limit in (("scored", "requests"), ("stored", "storing")):
            with control.request(work), pytest.raises(Overloaded) as full, control.request(work):
                pass
            assert full.value.kind == limit
        with control.body() as body, pytest.raises(Overloaded) as size:
            body.add(9)
        with control.scoring(["a"]), pytest.raises(Overloaded) as wait, control.scoring(["b"]):
            pass
        assert [size.value.kind, wait.value.kind] == ["bytes", "wait"]


class TestServer:
    def test_new_scores_are_counted_once_with_their_decision(self, small_server):
        def counts():
            request = 'origin="request"'
            return [
                small_server.metric(name).get(request, 0.0)
                for name in ("feedsieve_score_count", "feedsieve_positive_scores_total")
            ]

        texts = [f"сдаётся квартира номер {number}" for number in range(4)]
        before = counts()
        answer = small_server.client.post("/score", json={"texts": texts}).json()
        small_server.client.post("/score", json={"texts": texts})
        positive = sum(one["label"] == "positive" for one in answer)
        assert [after - start for after, start in zip(counts(), before, strict=True)] == [
            len(texts),
            positive,
        ]

    def test_scores_of_the_backfill_are_counted(self, small_server):
        assert small_server.metric("feedsieve_score_count")['origin="backfill"'] > 0

    def test_refusals_are_counted_by_reason(self, small_server):
        def refusals():
            return small_server.metric("feedsieve_refusals_total")

        before = refusals()
        assert {'reason="requests"', 'reason="bytes"', 'reason="wait"'} <= set(before)
        post = small_server.client.post
        assert post("/score", content=b"[]").status_code == 415
        assert post("/score", json={"texts": 1}).status_code == 400
        packed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        huge = gzip.compress(b" " * (MAX_BODY + 1))
        assert post("/score", content=huge, headers=packed).status_code == 413
        for reason in ("media_type", "invalid", "too_large"):
            label = f'reason="{reason}"'
            assert refusals()[label] == before[label] + 1

    def test_pages_are_counted_as_rendered_or_cached(self, small_server):
        before = small_server.metric("feedsieve_pages_total")
        for _ in range(2):
            small_server.client.get("/feed?limit=7")
        after = small_server.metric("feedsieve_pages_total")
        assert after['outcome="rendered"'] == before['outcome="rendered"'] + 1
        assert after['outcome="cached"'] == before['outcome="cached"'] + 1

    def test_process_loop_and_build_are_shown(self, small_server):
        assert 0 < small_server.metric("process_start_time_seconds")[""] < time.time()
        assert small_server.metric("feedsieve_loop_lag_seconds_count")[""] > 0
        assert small_server.metric("feedsieve_requests_in_progress")[""] >= 1
        assert list(small_server.metric("feedsieve_build_info").values()) == [1]
