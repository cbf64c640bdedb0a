"""`python -m labeling` with a running Label Studio."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from labeling_command import NASTY, labeling, rows_of, texts, write_csv
from serving import ROOT
from studio_server import PROGRAM, Annotator, StudioServer, studio_server
from tiny_bert import save_tiny_bert

from feedsieve.store.store import MessageStore
from feedsieve.text import storable
from labeling.batch import Item, write_batch
from labeling.push import HELD_OUT, TITLE, project_title
from labeling.studio import Studio
from train.data.labelled import read_labeled


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
    """A function that runs the command on the running Label Studio and returns its output."""

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
    assert "48 messages added to the project 'feedsieve'" in run("push", batch)
    project = studio.find(TITLE)
    assert project is not None
    return project


@pytest.fixture(scope="module")
def labelled(pushed, first, second) -> None:
    """All messages, labelled by two people who differ on one in eight of the first forty."""
    for annotator in (first, second):
        for identifier, task in annotator.tasks(pushed).items():
            number = int(identifier)
            is_positive = number % 3 == 0
            if annotator is second and number < 140 and number % 8 == 0:
                is_positive = not is_positive
            annotator.label(task, "positive" if is_positive else "negative")


@pytest.fixture(scope="module")
def pulled(labelled, run, home) -> tuple[Path, str]:
    """The file of labels after a pull, and the output of the pull."""
    path = home / "labeled.csv"
    rows = [["7", "of somebody else", "1"], ["101", texts(40)[1], "1"], ["140", NASTY[0], "0"]]
    rows += [["104", texts(40)[4], "0"]]  # on which annotators are tied
    write_csv(path, ["msg_id", "msg", "label"], *rows)
    return path, run("pull", path)


@pytest.mark.lab
class TestServer:
    def test_only_the_owner_can_read_secrets(self, server):
        for name in ("token", "password"):
            assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700

    def test_output_names_secrets_without_showing_them(self, server):
        output = server.log.read_text()
        assert f"Label Studio at {server.url}" in output
        assert f"API token in {server.data / 'token'}" in output
        assert server.token.read_text().strip() not in output

    def test_sign_up_without_link_is_rejected(self, server):
        with httpx.Client(base_url=server.url, timeout=300) as client:
            answer = server.sign_up(client, "/user/signup/", "stranger@example.org")
        assert answer.status_code == 403

    def test_page_has_no_telemetry(self, server):
        page = server.owner().client.get("/user/login/", headers={"Authorization": ""}).text
        assert "sentry" not in page.lower()
        assert "googletagmanager" not in page

    def test_taken_port_is_reported(self, server, tmp_path):
        port = server.url.rpartition(":")[2]
        done = subprocess.run(
            [sys.executable, "-m", "labeling.server", "--port", port, "--data", tmp_path]
            + ["--program", PROGRAM],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"port {port} is not available" in done.stderr

    def test_wrong_token_is_reported(self, server, home):
        done = labeling(
            "pull", "l.csv", "--url", server.url, home=home, LABEL_STUDIO_API_KEY="wrong"
        )
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert f"Label Studio at {server.url} rejects the API token" in line


@pytest.mark.lab
class TestPush:
    def test_known_texts_are_not_imported_again(self, pushed, run, home, messages, studio):
        again = home / "again.csv"
        copy = Item("999", "  " + texts(40)[0].replace(" ", "\n"))  # the first with other spaces
        new = Item("998", "brand new")
        write_batch([Item("100", texts(40)[0]), copy, new, new], again)
        assert "1 messages added to the project 'feedsieve'" in run("push", again)
        assert "0 messages added" in run("push", again)
        assert len(list(studio.tasks(pushed))) == len(messages) + 1

    def test_imported_texts_are_storable(self, pushed, first, messages):
        tasks = first.tasks(pushed)
        for identifier, text in messages.items():
            assert tasks[identifier]["data"]["msg"] == storable(text)

    def test_score_becomes_a_prediction(self, pushed, first):
        [prediction] = first.tasks(pushed)["100"]["predictions"]
        assert prediction["score"] == pytest.approx(0.9)
        assert prediction["model_version"] == "unknown"  # no model is in the store
        assert prediction["result"][0]["value"] == {"choices": ["positive"]}

    def test_prediction_is_shown_and_not_preselected(self, pushed, first):
        shown = first.tasks(pushed)["100"]["data"]["prediction"]
        assert shown == "prediction: positive, score 0.90 by unknown"
        project = first.client.get(f"/api/projects/{pushed}").json()
        assert project["show_collab_predictions"] is False


@pytest.mark.lab
class TestPull:
    def test_labels_have_annotators_and_times(self, pulled):
        rows = rows_of(pulled[0])
        assert rows["102"]["label"] == "1"
        assert rows["102"]["annotator"] == "feedsieve@localhost second@example.org"
        assert datetime.fromisoformat(rows["102"]["labeled_at"]).tzinfo
        assert rows["100"]["label"] == "0"

    def test_ties_are_left_out_and_reported(self, pulled):
        path, output = pulled
        rows = rows_of(path)
        tied = [str(number) for number in range(100, 140) if number % 8 == 0]
        assert set(tied) & set(rows) == {"104"} and rows["104"]["label"] == "0"
        assert f"{path} keeps the earlier label of 1 of the tied messages" in output
        assert "left out 5 messages on which annotators are tied: '104'; '112'" in output

    def test_changes_are_reported_and_other_rows_stay(self, pulled):
        path, output = pulled
        rows = rows_of(path)
        assert rows["7"] == {
            "msg_id": "7", "msg": "of somebody else", "label": "1", "annotator": "",
            "labeled_at": "",
        }  # fmt: skip
        assert rows["101"]["label"] == "0"
        assert "changed: msg_id '101': '1' is now 0, by feedsieve@localhost second@" in output
        assert "1 changed, 1 confirmed, 2 other rows unchanged" in output

    def test_agreement_is_reported(self, pulled):
        assert re.search(r"agree on 90% of 4[89] messages, Cohen's kappa 0\.7\d", pulled[1])

    def test_every_annotation_is_in_the_store(self, pulled, run, home):
        found = re.search(r"(\d+) labels new, 0 known; (\d+) messages added", pulled[1])
        labels, added = map(int, found.groups())
        assert labels == 2 * added >= 96  # of two people; tests before may have added a message
        assert f"0 labels new, {labels} known; 0 messages added" in run("pull")
        store = MessageStore.open(home / "data" / "messages.db")
        tied = [each.message.id for each in store.labels() if each.label is None]
        assert tied == [str(number) for number in range(100, 140) if number % 8 == 0]
        assert {each.who for each in store.label_history("102")} == {
            "feedsieve@localhost",
            "second@example.org",
        }
        store.close()

    def test_texts_are_unchanged(self, pulled, messages):
        rows = rows_of(pulled[0])
        for identifier, text in messages.items():
            if identifier in rows:
                assert rows[identifier]["msg"] == storable(text)

    def test_second_pull_does_not_write(self, pulled, run):
        path, _output = pulled
        before = path.read_bytes(), path.stat().st_ino
        assert "nothing new, the file was not written" in run("pull", path)
        assert (path.read_bytes(), path.stat().st_ino) == before

    def test_training_reads_pulled_labels(self, pulled, tmp_path):
        path, _output = pulled
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
    def test_audited_message_gets_the_label_of_the_audit(
        self, pulled, run, home, studio, second, pushed
    ):
        path, _output = pulled
        text = rows_of(path)["102"]["msg"]
        audit = write_csv(
            home / "audit.csv",
            ["msg_id", "msg", "label", "score", "kind", "reason", "neighbours"],
            ["102", text, "1", "0.02", "“sale”: 3 of 4", "but <b>doubted</b>", "negative: one"],
        )
        (home / "guideline.md").write_text("sales & <i>offices</i>: no\nflats: yes", "utf-8")
        printed = run("push", audit, "--guideline", home / "guideline.md")
        assert "1 messages added to the project 'feedsieve audit'" in printed
        assert "guideline.md is shown to annotators" in printed
        assert "0 messages added" in run("push", audit)
        project = studio.find(project_title(is_audit=True))
        assert project is not None
        task = second.tasks(project)["102"]
        assert task["data"]["reason"].splitlines() == [
            "prediction: negative, score 0.02 by held out",
            "but <b>doubted</b>",
            "“sale”: 3 of 4",
            "",
            "similar messages:",
            "negative: one",
        ]
        shown = second.client.get(f"/api/projects/{project}/").json()
        assert shown["show_instruction"]
        assert shown["expert_instruction"] == (
            "sales &amp; &lt;i&gt;offices&lt;/i&gt;: no<br>flats: yes"
        )
        assert task["predictions"][0]["model_version"] == HELD_OUT
        second.label(task, "negative")
        copy = home / "copy.csv"
        copy.write_bytes(path.read_bytes())
        assert "changed: msg_id '102': '1' is now 0, by second@example.org" in run("pull", copy)
        assert rows_of(copy)["102"]["annotator"] == "second@example.org"
        assert rows_of(copy)["102"]["ground_truth"] == "1"
        assert read_labeled(copy).set_index("msg_id")["ground_truth"]["102"]


@pytest.mark.lab
class TestByHand:
    """The steps of docs/labelling.md in the browser, by the requests of the browser."""

    def test_exports_of_a_manual_import_are_readable(self, first, tmp_path, messages):
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
