"""The labelling loop: a batch into Label Studio, labels out of it, and into the file."""

import csv
import json
import os
import random
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from serving import ROOT, free_port
from studio_server import PROGRAM, Annotator, StudioServer, studio_server
from tiny_bert import save_tiny_bert

from feedsieve.text import storable
from labeling.batch import BadBatch, Item, read_batch, write_batch
from labeling.pull import BadLabels, Label, agreements, merge, resolve
from labeling.push import AUDIT_TITLE, HELD_OUT, TITLE
from labeling.studio import Studio
from train.data import read_labeled
from train.label_studio import Decision, Vote

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]
NASTY = [
    "<b>bold</b> <script>alert(1)</script> <img src=x onerror=alert(1)>",
    "https://example.org/?a=1&b=2",  # nothing but a link
    "s3://bucket/key and upload/1.txt",
    "$msg {{msg}} ${msg} %s ]]> &amp; \"quoted\" 'single'",
    "two\nlines\r\nand a\ttab",
    "a family \U0001f468\u200d\U0001f469\u200d\U0001f467 moves \U0001f3e0 в Лимассол, €900",
    "nul \x00 here, bell \x07, half a pair \ud83c",
    "=1+1",
]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of which no two are near-duplicates."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def write_csv(path: Path, columns: list[str], *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["msg_id"]: row for row in csv.DictReader(file)}


def labeling(*arguments, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with an empty model store."""
    environment = os.environ | {"BENTOML_HOME": str(home / "bentoml"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "labeling", *map(str, arguments)],
        cwd=home,
        env=environment | {"COLUMNS": "100"} | variables,
        capture_output=True,
        text=True,
    )


def vote(label: str, day: int = 1) -> Vote:
    return Vote(label, datetime(2026, 1, day, tzinfo=UTC))


def decision(identifier: str, label: str | None, **votes: Vote) -> Decision:
    return Decision({"msg_id": identifier, "msg": f"text {identifier}"}, votes, label)


class TestResolve:
    def test_who_said_so_and_when(self):
        found = decision("1", "1", b=vote("positive", 2), a=vote("1", 3), c=vote("negative", 9))
        assert resolve([found]) == (
            [Label("1", "text 1", 1, "a b", "2026-01-03T00:00:00+00:00")],
            [],
        )

    def test_a_tie_is_no_label(self):
        tied = decision("1", None, a=vote("positive"), b=vote("negative"))
        assert resolve([tied]) == ([], ["1"])

    def test_the_audit_has_the_last_word(self):
        first = decision("1", "1", a=vote("positive", 9), b=vote("positive", 9))
        audit = decision("1", "0", a=vote("negative", 2))
        [label], tied = resolve([first, audit])
        assert (label.label, label.annotator, tied) == (0, "a", [])

    def test_two_chats_with_the_same_number(self):
        one = Decision({"msg_id": "1", "msg": "one"}, {"a": vote("positive")}, "1")
        other = Decision({"msg_id": "1", "msg": "other"}, {"a": vote("negative")}, "0")
        labels, _tied = resolve([one, other])
        assert [(label.msg, label.label) for label in labels] == [("one", 1), ("other", 0)]
        merged = merge(["msg_id", "msg", "label"], [], labels)
        assert [row["msg"] for row in merged.rows] == ["one"] and merged.other_text == ["1"]

    def test_a_choice_that_is_no_label(self):
        with pytest.raises(BadLabels, match="msg_id '1' is labelled 'unsure'"):
            resolve([decision("1", "unsure", a=vote("unsure"))])


ROWS = [
    {"msg_id": "1", "msg": "text 1", "label": "positive", "note": "mine"},
    {"msg_id": "2", "msg": "text 2", "label": "0", "note": ""},
]
COLUMNS = ["msg_id", "msg", "label", "note"]


class TestMerge:
    def label(self, identifier: str, label: int, msg: str = "") -> Label:
        return Label(identifier, msg or f"text {identifier}", label, "a", "then")

    def test_what_is_new_comes_last_and_nothing_goes(self):
        merged = merge(COLUMNS, ROWS, [self.label("3", 1)])
        assert merged.columns == [*COLUMNS, "annotator", "labeled_at"]
        assert merged.rows[:2] == ROWS
        assert merged.rows[2]["label"] == "1" and merged.rows[2]["annotator"] == "a"
        assert (merged.added, merged.confirmed, merged.changed) == (1, 0, [])

    def test_the_same_label_stays_as_it_is_written(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 1)])
        assert merged.rows[0] == ROWS[0] | {"annotator": "a", "labeled_at": "then"}
        assert (merged.added, merged.confirmed, merged.changed) == (0, 1, [])

    def test_another_label_is_said(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0)])
        assert merged.rows[0]["label"] == "0" and merged.rows[0]["note"] == "mine"
        assert merged.changed == ["msg_id '1': 'positive' is now 0, by a at then"]

    def test_another_text_is_left(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0, "edited since")])
        assert merged.rows == ROWS
        assert merged.other_text == ["1"]

    def test_spaces_do_not_make_another_text(self):
        merged = merge(COLUMNS, ROWS, [self.label("1", 0, " text\n1")])
        assert merged.rows[0]["msg"] == "text 1" and merged.changed

    def test_what_is_new_is_for_training(self):
        rows = [row | {"subset": "test"} for row in ROWS]
        merged = merge([*COLUMNS, "subset"], rows, [self.label("3", 1)])
        assert [row["subset"] for row in merged.rows] == ["test", "test", "train"]


class TestAgreement:
    def decided(self, *pairs: tuple[str, str], times: int = 5) -> list[Decision]:
        return [
            decision(f"{number}", "1", a=vote(first), b=vote(second))
            for number, (first, second) in enumerate(pairs * times)
        ]

    def test_kappa(self):
        pairs = ("positive", "positive"), ("negative", "negative"), ("positive", "negative")
        [found] = agreements(self.decided(*pairs))
        assert (found.first, found.second, found.common) == ("a", "b", 15)
        assert found.same == pytest.approx(2 / 3)
        assert found.kappa == pytest.approx(0.4)  # (2/3 - 4/9) / (1 - 4/9)

    def test_too_few_say_nothing(self):
        assert agreements(self.decided(("1", "1"), times=9)) == []

    def test_one_label_throughout_says_nothing_about_chance(self):
        [found] = agreements(self.decided(("1", "1"), times=10))
        assert found.same == 1 and found.kappa != found.kappa


class TestBatch:
    def test_comes_back(self, tmp_path):
        items = [Item("1", 'a "text"\nof two lines', 0.25, "some:tag"), Item("2", "b")]
        write_batch(items, tmp_path / "batch.csv")
        assert read_batch(tmp_path / "batch.csv") == items

    def test_names_what_is_wrong(self, tmp_path):
        path = write_csv(
            tmp_path / "b.csv", ["msg_id", "msg", "score"], ["1", "a", "2"], ["", "b", ""]
        )
        with pytest.raises(BadBatch, match="line 2: score is '2', not from 0 to 1; line 3: msg_id"):
            read_batch(path)

    def test_missing_columns(self, tmp_path):
        path = write_csv(tmp_path / "b.csv", ["id", "msg"], ["1", "a"])
        with pytest.raises(BadBatch, match="missing columns: msg_id"):
            read_batch(path)


class TestConfig:
    @pytest.mark.parametrize("name", ["config.xml", "audit.xml"])
    def test_texts_are_texts(self, name):
        """No tag that renders HTML or makes links is used."""
        root = ElementTree.parse(ROOT / "labeling" / name).getroot()
        assert {element.tag for element in root.iter()} == {"View", "Text", "Choices", "Choice"}
        assert {text.get("valueType") for text in root.iter("Text")} == {"text"}
        assert {choice.get("value"): choice.get("hotkey") for choice in root.iter("Choice")} == {
            "positive": "1",
            "negative": "2",
        }


class TestUnavailable:
    """One line that says what is wrong, and status 1."""

    def said(self, done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        [line] = done.stderr.splitlines()
        return line

    def test_no_token(self, tmp_path):
        said = self.said(labeling("pull", "l.csv", home=tmp_path))
        assert "no API token: LABEL_STUDIO_API_KEY is not set and .labelstudio/token" in said

    def test_no_server(self, tmp_path):
        url = f"http://127.0.0.1:{free_port()}"
        done = labeling("pull", "l.csv", "--url", url, home=tmp_path, LABEL_STUDIO_API_KEY="x" * 40)
        assert f"Label Studio at {url} cannot be reached" in self.said(done)
        assert not (tmp_path / "l.csv").exists()

    def test_no_program(self, tmp_path):
        command = [sys.executable, "-m", "labeling.server", "--program", "none"]
        done = subprocess.run(
            [*command, "--data", tmp_path / "d"], cwd=ROOT, capture_output=True, text=True
        )
        assert "there is no none; `make labelstudio` installs it" in self.said(done)
        assert not (tmp_path / "d").exists()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[StudioServer]:
    if not PROGRAM.exists():
        pytest.skip(f"no Label Studio at {PROGRAM}; `make test-lab` installs it")
    with studio_server(tmp_path_factory.mktemp("studio")) as running:
        yield running


@pytest.fixture(scope="module")
def first(server) -> Annotator:
    return server.owner()


@pytest.fixture(scope="module")
def second(server) -> Annotator:
    return server.join("second@example.org")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(server, home):
    """Run the command on the running Label Studio; it must succeed. Return what it says."""

    def call(*arguments) -> str:
        done = labeling(*arguments, "--url", server.url, "--token", server.token, home=home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def studio(server) -> Studio:
    return Studio.open(server.url, server.token)


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    everything = [*texts(40), *NASTY]
    return {f"{100 + number}": text for number, text in enumerate(everything)}


@pytest.fixture(scope="module")
def batch(home, messages) -> Path:
    items = [Item(identifier, storable(text), 0.9) for identifier, text in messages.items()]
    path = home / "batch.csv"
    write_batch(items, path)
    return path


@pytest.fixture(scope="module")
def pushed(run, batch, studio) -> int:
    """The number of the project, with the batch in it."""
    said = run("push", batch)
    assert "48 messages are new in the project 'feedsieve'" in said
    project = studio.find(TITLE)
    assert project is not None
    return project


@pytest.fixture(scope="module")
def labelled(pushed, first, second) -> None:
    """Two people label all messages; they differ on one of every eight of the first forty."""
    for annotator in (first, second):
        for identifier, task in annotator.tasks(pushed).items():
            number = int(identifier)
            is_positive = number % 3 == 0
            if annotator is second and number < 140 and number % 8 == 0:
                is_positive = not is_positive
            annotator.label(task, "positive" if is_positive else "negative")


@pytest.fixture(scope="module")
def pulled(labelled, run, home) -> tuple[Path, str]:
    """The file of labels after a pull, and what the pull said."""
    path = home / "labeled.csv"
    rows = [["7", "of somebody else", "1"], ["101", texts(40)[1], "1"], ["140", NASTY[0], "0"]]
    write_csv(path, ["msg_id", "msg", "label"], *rows)
    return path, run("pull", path)


@pytest.mark.lab
class TestServer:
    def test_secrets_are_the_users_own(self, server):
        for name in ("token", "password"):
            assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700

    def test_says_where_they_are(self, server):
        said = server.log.read_text()
        assert f"Label Studio at {server.url}" in said
        assert f"API token in {server.data / 'token'}" in said
        assert server.token.read_text().strip() not in said

    def test_nobody_can_just_sign_up(self, server):
        with httpx.Client(base_url=server.url, timeout=300) as client:
            answer = server.sign_up(client, "/user/signup/", "stranger@example.org")
        assert answer.status_code == 403

    def test_nothing_is_told_to_others(self, server):
        page = server.owner().client.get("/user/login/", headers={"Authorization": ""}).text
        assert "sentry" not in page.lower()
        assert "googletagmanager" not in page

    def test_a_port_that_is_taken(self, server, tmp_path):
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "labeling.server", "--port", port, "--data", tmp_path]
            + ["--program", PROGRAM],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"port {port} cannot be had" in done.stderr

    def test_a_wrong_token(self, server, home):
        done = labeling(
            "pull", "l.csv", "--url", server.url, home=home, LABEL_STUDIO_API_KEY="wrong"
        )
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert f"Label Studio at {server.url} refuses the API token" in line


@pytest.mark.lab
class TestPush:
    def test_no_message_comes_twice(self, pushed, run, home, messages, studio):
        again = home / "again.csv"
        copy = Item("999", "  " + texts(40)[0].replace(" ", "\n"))  # of the first, but for spaces
        new = Item("998", "brand new")
        write_batch([Item("100", texts(40)[0]), copy, new, new], again)
        assert "1 messages are new in the project 'feedsieve'" in run("push", again)
        assert "0 messages are new" in run("push", again)
        found = [task.text for task in studio.tasks(pushed)]
        assert len(found) == len(messages) + 1

    def test_texts_come_as_they_can_be_kept(self, pushed, first, messages):
        tasks = first.tasks(pushed)
        for identifier, text in messages.items():
            assert tasks[identifier]["data"]["msg"] == storable(text)

    def test_the_score_is_a_prediction(self, pushed, first):
        [prediction] = first.tasks(pushed)["100"]["predictions"]
        assert prediction["score"] == pytest.approx(0.9)
        assert prediction["model_version"] == "unknown"  # no model is in the store
        assert prediction["result"][0]["value"] == {"choices": ["positive"]}


@pytest.mark.lab
class TestPull:
    def test_labels_with_who_and_when(self, pulled):
        rows = rows_of(pulled[0])
        assert rows["102"]["label"] == "1"
        assert rows["102"]["annotator"] == "feedsieve@localhost second@example.org"
        assert datetime.fromisoformat(rows["102"]["labeled_at"]).tzinfo
        assert rows["100"]["label"] == "0"

    def test_ties_are_left_out_and_said(self, pulled):
        path, said = pulled
        rows = rows_of(path)
        tied = [str(number) for number in range(100, 140) if number % 8 == 0]
        assert not set(tied) & set(rows)
        assert "annotators are tied on 5 messages, left out: '104'; '112'" in said

    def test_changes_are_said_and_the_rest_is_kept(self, pulled):
        path, said = pulled
        rows = rows_of(path)
        assert rows["7"] == {
            "msg_id": "7", "msg": "of somebody else", "label": "1", "annotator": "",
            "labeled_at": "",
        }  # fmt: skip
        assert rows["101"]["label"] == "0"
        assert "changed: msg_id '101': '1' is now 0, by feedsieve@localhost second@" in said
        assert "1 changed, 1 as they were, 1 of other messages kept" in said

    def test_agreement_is_said(self, pulled):
        assert re.search(r"agree on 90% of 4[89] messages, Cohen's kappa 0\.7\d", pulled[1])

    def test_texts_survive(self, pulled, messages):
        rows = rows_of(pulled[0])
        for identifier, text in messages.items():
            if identifier in rows:
                assert rows[identifier]["msg"] == storable(text)

    def test_again_changes_nothing(self, pulled, run):
        path, _said = pulled
        before = path.read_bytes(), path.stat().st_ino
        assert "nothing new, the file was left as it is" in run("pull", path)
        assert (path.read_bytes(), path.stat().st_ino) == before

    def test_training_reads_it(self, pulled, tmp_path):
        path, _said = pulled
        assert len(read_labeled(path)) == len(rows_of(path))
        save_tiny_bert(tmp_path / "tiny")
        done = subprocess.run(
            [sys.executable, "-m", "train", "--data", path, "--encoder", tmp_path / "tiny"]
            + ["--report", tmp_path / "report"],
            cwd=ROOT,
            env=os.environ
            | {"BENTOML_HOME": str(tmp_path / "bentoml"), "FEEDSIEVE_CACHE": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "report" / "metrics.json").read_text())["test"]["n"] > 0


@pytest.mark.lab
class TestAudit:
    def test_a_labelled_message_is_labelled_again_beside_the_first_time(
        self, pulled, run, home, studio, second, pushed
    ):
        path, _said = pulled
        text = rows_of(path)["102"]["msg"]
        audit = write_csv(
            home / "audit.csv",
            ["msg_id", "msg", "label", "suggested_label", "score", "quality", "reason", "related"],
            ["102", text, "1", "0", "0.02", "0.02", "labelled positive, but <b>doubted</b>", ""],
        )
        assert "1 messages are new in the project 'feedsieve audit'" in run("push", audit)
        assert "0 messages are new" in run("push", audit)
        project = studio.find(AUDIT_TITLE)
        assert project is not None
        task = second.tasks(project)["102"]
        assert task["data"]["reason"] == "labelled positive, but <b>doubted</b>"
        assert task["predictions"][0]["model_version"] == HELD_OUT
        second.label(task, "negative")
        copy = home / "copy.csv"
        copy.write_bytes(path.read_bytes())
        assert "changed: msg_id '102': '1' is now 0, by second@example.org" in run("pull", copy)
        assert rows_of(copy)["102"]["annotator"] == "second@example.org"


@pytest.mark.lab
class TestByHand:
    """What docs/labelling.md tells to do in the browser, by the requests that the browser makes."""

    def test_a_batch_in_and_labels_out(self, first, tmp_path, messages):
        config = (ROOT / "labeling" / "config.xml").read_text()
        project = first.post("/api/projects/", json={"title": "by hand"}).json()["id"]
        header = {"Content-Type": "application/json"}
        changed = first.client.patch(
            f"/api/projects/{project}/", json={"label_config": config}, headers=header
        )
        assert changed.is_success, changed.text
        path = tmp_path / "batch.csv"
        write_batch([Item(name, storable(text)) for name, text in messages.items()], path)
        with path.open("rb") as file:
            upload = first.post(
                f"/api/projects/{project}/import?commit_to_project=false",
                files={"batch.csv": ("batch.csv", file, "text/csv")},
            ).json()
        first.post(
            f"/api/projects/{project}/reimport",
            json={"file_upload_ids": upload["file_upload_ids"], "files_as_tasks_list": True},
        )
        for identifier, task in first.tasks(project).items():
            first.label(task, "positive" if int(identifier) % 3 == 0 else "negative")
        for kind in ("CSV", "JSON"):
            export = tmp_path / f"export.{kind.lower()}"
            query = {"exportType": kind}
            answer = first.client.get(f"/api/projects/{project}/export", params=query)
            export.write_bytes(answer.content)
            frame = read_labeled(export).set_index("msg_id")
            assert len(frame) == len(messages)
            assert frame["label"]["102"] == 1
            assert frame["msg"]["140"] == NASTY[0]
