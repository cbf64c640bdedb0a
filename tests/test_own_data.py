"""Commands run on own data as soon as there is some, and never mix the sample into it."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
from model_copies import CLASSIFIER, newest
from serving import ROOT

from data import choose, generate
from data.generate import DATABASE, LABELED
from feedsieve.__main__ import main as feedsieve
from feedsieve.message import Message
from feedsieve.settings import settings
from feedsieve.store.store import MessageStore
from labeling.next import main as labeling_next
from train.data.chosen import SAMPLE_DIGESTS, LabelsOfOthers, chosen

OWN, SAMPLE = Path("data/messages.db"), Path("data/sample")
LABELS = Path("data") / LABELED
CAT = "Отдам котёнка в добрые руки"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty checkout to run in."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture
def with_sample(sample) -> None:
    SAMPLE.mkdir()
    for name in (DATABASE, LABELED):
        shutil.copyfile(sample / name, SAMPLE / name)


def add(database: Path, *messages: Message) -> None:
    store = MessageStore.open(database)
    store.add(messages)
    store.close()
    settings.cache_clear()


def own_messages(count: int = 30) -> None:
    """Store messages numbered as those of the sample are."""
    add(OWN, *(Message(str(number), f"{CAT}, {number}") for number in range(1, count + 1)))


def former_sample(sample: Path) -> None:
    """Put the sample where former versions did, with messages in the store."""
    shutil.copyfile(sample / DATABASE, OWN)
    shutil.copyfile(sample / LABELED, LABELS)
    settings.cache_clear()


class TestStore:
    def test_store_is_own_where_there_is_nothing(self):
        assert settings().db == str(OWN)

    def test_sample_is_used_until_there_is_own_data(self, with_sample):
        assert settings().db == str(SAMPLE / DATABASE) and settings().is_sample
        own_messages()
        assert settings().db == str(OWN) and not settings().is_sample

    def test_own_labels_or_sources_are_own_data(self, with_sample, monkeypatch):
        LABELS.write_text("msg_id,msg,label\n")
        assert settings().db == str(OWN)
        LABELS.unlink()
        settings.cache_clear()
        monkeypatch.setenv("FEEDSIEVE_SOURCES", "incoming")
        assert settings().db == str(OWN)

    def test_named_store_comes_first(self, with_sample, monkeypatch):
        monkeypatch.setenv("FEEDSIEVE_DB", str(OWN))
        assert settings().db == str(OWN)

    def test_import_never_goes_into_the_sample(self, with_sample, capsys):
        Path("chat.csv").write_text(f"msg_id,msg\n1,{CAT}\n")
        before = (SAMPLE / DATABASE).read_bytes()
        assert feedsieve(["import", "chat.csv"]) == 0
        assert capsys.readouterr().out.startswith(f"{OWN} is your own data: commands run on it")
        assert (SAMPLE / DATABASE).read_bytes() == before
        settings.cache_clear()
        assert [message.text for message in MessageStore.open(settings().db).read_all()] == [CAT]

    def test_imported_labels_never_go_into_the_sample(self, with_sample):
        Path("labels.csv").write_text(f"msg_id,msg,label\n1,{CAT},1\n")
        assert feedsieve(["labels", "import", "labels.csv"]) == 0
        assert MessageStore.open(OWN).count() == 1


class TestChosen:
    def test_sample_and_its_labels_are_chosen_together(self, with_sample):
        found = chosen()
        assert (found.db, found.labels) == (str(SAMPLE / DATABASE), SAMPLE / LABELED)
        assert str(found).startswith("the sample chat: messages of data/sample/messages.db")
        assert found.folder == SAMPLE

    def test_labels_of_the_sample_do_not_meet_own_messages(self, with_sample):
        own_messages()
        assert (chosen().db, chosen().labels, chosen().is_sample) == (str(OWN), None, False)
        assert str(chosen()) == "your own data: messages of data/messages.db, the labels in it"

    def test_own_labels_are_chosen_with_own_messages(self, with_sample):
        own_messages()
        LABELS.write_text(f'msg_id,msg,label\n1,"{CAT}, 1",1\n2,"{CAT}, edited",0\n99,gone,0\n')
        assert (chosen().labels, chosen().is_sample) == (LABELS, False)

    def test_named_store_has_its_labels_in_it(self, monkeypatch):
        LABELS.write_text("msg_id,msg,label\n1,a sofa,1\n")
        monkeypatch.setenv("FEEDSIEVE_DB", "data/mine.db")
        assert (chosen().db, chosen().labels) == ("data/mine.db", None)

    def test_labels_of_another_chat_are_refused(self):
        own_messages()
        LABELS.write_text("msg_id,msg,label\n1,a sofa,1\n2,a chair,0\n40,a table,0\n")
        with pytest.raises(LabelsOfOthers, match="of 2 with .* in both, 2 have another text"):
            chosen()


class TestFormerSample:
    """Former versions made the sample in data/."""

    def test_digest_is_that_of_the_sample(self, sample):
        assert sha256((sample / LABELED).read_bytes()).hexdigest() == SAMPLE_DIGESTS[0]

    def test_it_is_used_as_the_sample(self, sample):
        former_sample(sample)
        assert chosen().is_sample and chosen().labels == LABELS

    def test_its_labels_are_refused_with_messages_of_a_real_chat(self, sample):
        former_sample(sample)
        OWN.unlink()
        own_messages()
        with pytest.raises(LabelsOfOthers, match="have another text; move it to data/sample/"):
            chosen()

    def test_its_labels_are_refused_with_own_messages_beside_the_sample(self, sample):
        former_sample(sample)
        add(OWN, Message("own 1", CAT))
        with pytest.raises(LabelsOfOthers, match="invented labels of the sample"):
            chosen()

    def test_its_labels_are_refused_with_messages_of_other_identifiers(self, sample):
        former_sample(sample)
        OWN.unlink()
        add(OWN, Message("own 1", CAT))
        with pytest.raises(LabelsOfOthers, match="invented labels of the sample"):
            chosen()


class TestChooseCommand:
    def run(self, capsys, *arguments: str) -> list[str]:
        settings.cache_clear()
        assert choose.main(arguments) == 0
        return capsys.readouterr().out.splitlines()

    def test_sample_is_made_once_and_own_data_named_first(self, capsys, monkeypatch):
        Path("data/result.json").touch()
        lines = self.run(capsys, "--quiet")
        assert lines[0].startswith("on the sample chat in data/sample/")
        assert "not read: data/result.json; `feedsieve import`" in lines[1]
        assert {path.name for path in SAMPLE.iterdir()} == {DATABASE, LABELED}
        assert self.run(capsys, "--quiet") == []
        assert self.run(capsys, "--db") == ["data/sample/messages.db"]
        own_messages()
        [line] = self.run(capsys)
        assert line == "on your own data: messages of data/messages.db, the labels in it"

    def test_sample_is_not_made_beside_own_data(self, capsys):
        own_messages()
        assert self.run(capsys, "--quiet") == []
        assert not SAMPLE.exists()


def test_sample_is_generated_into_its_folder(capsys):
    assert generate.main(["--messages", "50"]) == 0
    assert len(pd.read_csv(SAMPLE / LABELED)) == 40


def test_batch_is_chosen_beside_the_data(with_sample, monkeypatch, capsys, home):
    monkeypatch.setattr(sys, "argv", ["labeling.next", "--by", "time", "--count", "3"])
    assert labeling_next() == 0
    assert capsys.readouterr().out.startswith("on the sample chat: messages of data/sample/")
    assert len(pd.read_csv(SAMPLE / "batch.csv")) == 3


def test_git_ignores_what_commands_write():
    written = ["batch.csv", "labeled_messages.csv", "scored_corpus.csv", "volume/x", "base/x"]
    written += [f"data/{name}" for name in (*written[:3], "messages.db", "sample/messages.db")]
    listed = subprocess.run(
        ["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 128:
        pytest.skip("not a git checkout")
    assert listed.stdout.split() == written


class TestModel:
    """`python -m train --unless-trained`, which `make serve` runs first."""

    @pytest.fixture
    def models(self, small_home, folder) -> Path:
        return shutil.copytree(small_home, folder / "bentoml")

    def train(self, models: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"BENTOML_HOME": str(models), "PYTHONPATH": str(ROOT)} | variables
        return subprocess.run(
            [sys.executable, "-m", "train", "--unless-trained", "--no-track"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )

    def label(self, models: Path) -> str:
        """Label the model as `make train` does those of the sample; return its tag."""
        version = newest(models)
        about = models / "models" / CLASSIFIER / version / "model.yaml"
        text = about.read_text()
        assert "labels: {}" in text
        about.write_text(text.replace("labels: {}", "labels:\n  data: sample"))
        return f"{CLASSIFIER}:{version}"

    def test_model_of_the_sample_is_not_used_on_own_messages(self, models):
        own_messages()
        done = self.train(models)
        assert done.returncode == 0, done.stderr
        assert f"{CLASSIFIER}:{newest(models)} is there already" in done.stdout
        tag = self.label(models)
        done = self.train(models)
        assert done.returncode == 1 and "has no labels" in done.stderr
        assert done.stdout.startswith("on your own data: messages of data/messages.db")
        assert f"{tag} was trained on the sample chat, so it is not used" in done.stdout
        done = self.train(models, FEEDSIEVE_MODEL=tag)
        assert done.returncode == 0 and "is there already" in done.stdout

    def test_model_of_the_sample_is_used_on_the_sample(self, models, with_sample):
        self.label(models)
        done = self.train(models)
        assert done.returncode == 0 and "is there already" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "command",
    [["keys", "add", "mine"], ["keys", "list"], ["deploy"], ["labels", "agreement"]],
)
def test_commands_that_bring_no_messages_make_no_store(command, monkeypatch, capsys):
    """An empty store would count as the user's own data."""
    monkeypatch.setattr("sys.argv", ["feedsieve", *command])
    assert feedsieve() == 1
    error = capsys.readouterr().err
    assert "there is no message store yet: `feedsieve import FILE` makes data/messages.db" in error
    assert not list(Path("data").iterdir())
