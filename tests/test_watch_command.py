"""`feedsieve watch`, run, killed and started again as users do it."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_servers import TOKEN, Page, bot_api, feeds
from serving import ROOT
from test_live_feeds import item, rss
from test_live_folder import write

from feedsieve.__main__ import main
from feedsieve.settings import settings as read_settings
from feedsieve.store.store import MessageStore

__all__ = ["bot_api", "feeds"]

WITHIN = 60.0  # seconds; an idle machine takes about five


@pytest.fixture
def environment(bot_api, tmp_path) -> dict[str, str]:
    return {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "FEEDSIEVE_DB": str(tmp_path / "own.db"),
        "FEEDSIEVE_TELEGRAM_API": bot_api.url,
        "FEEDSIEVE_TELEGRAM_TOKEN": TOKEN,
        "PATH": "",
        "PYTHONPATH": str(ROOT),
    }


class Watch:
    """A running command, and all that it prints."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: object) -> None:
        self.log = folder / "watch.log"
        self._earlier = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "feedsieve", "watch", *map(str, arguments)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Whatever a shell starts in the background ignores Ctrl-C, and so do its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def said(self) -> str:
        return self.log.read_bytes()[self._earlier :].decode()

    def wait_for(self, condition) -> None:
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(WITHIN)


@pytest.fixture
def watch(environment, tmp_path):
    started: list[Watch] = []

    def start(*arguments: object, **settings: str) -> Watch:
        started.append(Watch(environment | settings, tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def run(watch, *arguments: object, **settings: str) -> tuple[int, str]:
    running = watch(*arguments, **settings)
    code = running.process.wait(WITHIN)
    assert "Traceback" not in running.said
    return code, running.said


def stored(environment) -> dict[str, str]:
    store = MessageStore.open(environment["FEEDSIEVE_DB"])
    messages = store.read_all()
    store.close()
    texts = {message.id: message.text for message in messages}
    assert len(texts) == len(messages)
    return texts


def test_killed_watch_has_every_message_once_and_the_edits(watch, environment, bot_api, tmp_path):
    choose = random.Random(4)
    expected: dict[str, str] = {}
    bot_api.most = 7
    said = ""
    for round_ in range(6):
        for number in range(60):
            if expected and not number % 4:
                identifier = choose.choice(list(expected))
                expected[identifier] = text = f"правка {round_}-{number}"
                edited = {"edit_date": 1_700_000_100 + 60 * round_ + number}
                bot_api.put("edited_message", message_id=int(identifier), text=text, **edited)
            else:
                identifier = str(len(expected) + 1)
                expected[identifier] = text = f"сообщение {identifier}"
                bot_api.put(message_id=int(identifier), text=text)
        asked = len(bot_api.asked) + 1 + 2 * round_
        running = watch("telegram:")
        running.wait_for(lambda asked=asked: len(bot_api.asked) >= asked)
        time.sleep(choose.uniform(0, 0.05))
        arguments = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
        assert TOKEN.encode() not in arguments
        said += running.said
        assert set(stored(environment)) <= set(expected)
    code, last = run(watch, "telegram:", "--once")
    assert (code, bot_api.updates) == (0, [])
    assert stored(environment) == expected
    assert "сообщение" not in said + last
    assert TOKEN.partition(":")[2] not in said + last


def test_killed_import_of_a_file_starts_over(watch, environment, tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    write(folder / "big.csv", *[f"текст {number}" for number in range(60_000)])
    for wait in (0.1, 0.6):
        running = watch(folder)
        running.wait_for(lambda running=running: "following" in running.said)
        time.sleep(wait)
        running.end(signal.SIGKILL)
        assert len(stored(environment)) in (0, 60_000)
    code, said = run(watch, folder, "--once")
    assert (code, len(stored(environment))) == (0, 60_000)
    code, said = run(watch, folder, "--once")
    assert (code, "big.csv" in said) == (0, False)


def test_all_kinds_of_sources_are_followed_until_sigterm(
    watch, environment, bot_api, feeds, tmp_path
):
    feeds.pages["/feed"] = Page(rss(item("f1", "из ленты")))
    folder = tmp_path / "exports"
    folder.mkdir()
    url = f"{feeds.url}/feed".replace("//", "//reader:pass-word@")
    running = watch("telegram:", folder, url, FEEDSIEVE_FEED_INTERVAL="1")
    running.wait_for(lambda: running.said.count("following") == 3 and feeds.asked)
    bot_api.put(message_id=1, text="из чата")
    (folder / "a.csv").write_text("msg_id,msg\nc1,из файла\n")
    feeds.pages["/feed"] = Page(rss(item("f2", "ещё из ленты"), item("f1", "из ленты")))
    running.wait_for(lambda: len(stored(environment)) == 4)
    assert running.end(signal.SIGTERM) == 0
    assert stored(environment) == {
        "1": "из чата", "c1": "из файла", "f1": "из ленты", "f2": "ещё из ленты"
    }  # fmt: skip
    assert "telegram: 1 new, 0 changed from 'Соседи'" in running.said
    assert f"{folder}: 1 new, 0 changed from 'a.csv'" in running.said
    assert "Traceback" not in running.said and "pass-word" not in running.said
    assert feeds.asked[0][1]["authorization"].startswith("Basic ")


def test_ctrl_c_exits_with_130(watch, bot_api):
    running = watch("telegram:")
    running.wait_for(lambda: bot_api.asked)
    assert running.end(signal.SIGINT) == 130
    assert "Traceback" not in running.said


def test_rejected_token_exits_with_1(watch, bot_api):
    bot_api.token = "1:another"
    code, said = run(watch, "telegram:")
    assert code == 1
    assert "rejects the token; check FEEDSIEVE_TELEGRAM_TOKEN" in said
    assert TOKEN.partition(":")[2] not in said


@pytest.mark.parametrize(
    ("source", "settings", "reason"),
    [
        ("telegram:", {"FEEDSIEVE_TELEGRAM_TOKEN": ""}, "telegram: needs the bot's token"),
        ("telegram:", {"FEEDSIEVE_TELEGRAM_TOKEN": "secret-word"}, "the token is not one of"),
        ("telegram:secret-word", {}, "nothing may follow the colon"),
        ("http://", {}, "not a URL of a feed"),
        ("nowhere", {}, "nowhere: No such file or directory; expected a folder"),
        ("telegram:", {"FEEDSIEVE_DB": "/"}, "a folder, not a file"),
    ],
)
def test_source_that_cannot_be_followed_is_one_line(
    environment, monkeypatch, capsys, caplog, source, settings, reason
):
    for name, value in (environment | settings).items():
        monkeypatch.setenv(name, value)
    read_settings.cache_clear()
    try:
        assert main(["watch", source, "--once"]) == 1
    finally:
        read_settings.cache_clear()
    said = capsys.readouterr().err + caplog.text
    assert reason in said
    assert "secret-word" not in said and "Traceback" not in said


def test_pass_over_a_failing_source_exits_with_1_and_takes_the_others(
    watch, environment, bot_api, feeds
):
    bot_api.put(message_id=1, text="из чата")
    code, said = run(watch, f"{feeds.url}/missing", "telegram:", "--once")
    assert (code, stored(environment)) == (1, {"1": "из чата"})
    assert f"{feeds.url}/missing: answers 404\n" in said


def test_token_may_be_in_a_file(watch, environment, bot_api, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    bot_api.put(message_id=1, text="из чата")
    settings = {"FEEDSIEVE_TELEGRAM_TOKEN": "", "FEEDSIEVE_TELEGRAM_TOKEN_FILE": "token"}
    assert run(watch, "telegram:", "--once", **settings)[0] == 0
    assert len(stored(environment)) == 1


def test_two_watchers_do_not_poll_one_bot(watch, environment, bot_api):
    first = watch("telegram:")
    first.wait_for(lambda: bot_api.asked)
    second = watch("telegram:")
    second.wait_for(lambda: "another process follows it" in second.said)
    asked = len(bot_api.asked)
    first.end(signal.SIGKILL)
    second.wait_for(lambda: len(bot_api.asked) > asked)
    bot_api.put(message_id=1, text="из чата")
    second.wait_for(lambda: "1 new" in second.said)
    assert stored(environment) == {"1": "из чата"}
