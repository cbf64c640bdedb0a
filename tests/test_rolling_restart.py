"""Two servers on one store behind HAProxy, restarted in turn under load: no request is lost."""

import os

import pytest

from loadtests.rolling_restart import haproxy, roll

SECONDS = float(os.environ.get("FEEDSIEVE_TEST_LOAD_SECONDS", "0"))  # by default each restarts once


@pytest.mark.skipif(haproxy() is None, reason="no HAProxy is installed: apt-get install haproxy")
def test_rolling_restart_loses_no_request(small_home, tmp_path, monkeypatch):
    monkeypatch.setenv("BENTOML_HOME", str(small_home))
    load, restarts = roll(tmp_path, str(tmp_path / "messages.db"), SECONDS, clients=32)
    assert load.lost == {}
    assert restarts >= 2
    assert load.requests > 200
    assert load.acknowledged
