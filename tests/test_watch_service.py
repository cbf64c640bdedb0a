"""Live sources that the service follows."""

import os
import signal

import pytest
from live_servers import TOKEN, bot_api
from serving import serve, wait_for, wait_until_ready

__all__ = ["bot_api"]


@pytest.fixture
def watching(small_home, bot_api, tmp_path) -> dict[str, str]:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.csv").write_text("msg_id,msg\nc1,Сдаётся стол\n")
    return {
        "BENTOML_HOME": str(small_home),
        "FEEDSIEVE_DB": str(tmp_path / "messages.db"),
        "FEEDSIEVE_SOURCES": f"telegram:, {tmp_path / 'exports'}, http://",
        "FEEDSIEVE_TELEGRAM_API": bot_api.url,
        "FEEDSIEVE_TELEGRAM_TOKEN": TOKEN,
    }


def in_feed(count: int):
    return lambda answer: answer.status_code == 200 and len(answer.json()["items"]) == count


def test_messages_of_live_sources_are_in_the_feed_within_seconds(watching, bot_api, tmp_path):
    bot_api.put(message_id=1, text="Куплю стол")
    with serve(watching, tmp_path) as server:
        wait_for(server, "/feed", in_feed(2))
        bot_api.put(message_id=2, text="Продам стул")
        wait_for(server, "/feed", in_feed(3), within=20)
        new = server.metric("feedsieve_watched_messages_total")
        assert new['change="new",source="telegram"'] == 2
        log = server.log.read_text()
        assert "telegram: 1 new, 0 changed from 'Соседи'" in log
        assert "not a URL of a feed" in log
    log = server.log.read_text()
    assert TOKEN.partition(":")[2] not in log
    assert "Куплю" not in log and "Traceback" not in log
    assert server.process.returncode == 0


def test_second_server_takes_over_when_the_first_is_killed(watching, bot_api, tmp_path):
    with serve(watching, tmp_path) as first:
        wait_for(first, "/feed", in_feed(1))
        with serve(watching, tmp_path) as second:
            wait_until_ready(second)
            waits = "telegram: another process follows it"
            wait_for(second, "/livez", lambda _: waits in second.log.read_text())
            os.killpg(first.process.pid, signal.SIGKILL)
            first.process.wait()
            bot_api.put(message_id=1, text="Куплю стол")
            wait_for(second, "/feed", in_feed(2), within=30)
        assert "another program polls this bot" not in second.log.read_text()
