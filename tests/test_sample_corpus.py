import re
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from data.generate import (
    DATABASE,
    LABELED,
    LABELED_SHARE,
    WRONG_SHARE,
    Message,
    compose,
    main,
    write,
)
from data.kinds import KINDS, LANGUAGES
from data.phrases import AWKWARD, TABLES
from feedsieve.message import Message as Imported
from feedsieve.sources.readers import read_messages
from feedsieve.store.store import MessageStore
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups

ROOT = Path(__file__).resolve().parent.parent
LETTERS = {
    "ru": re.compile("[а-яё]", re.IGNORECASE),
    "uk": re.compile("[а-яіїєґ]", re.IGNORECASE),
    "en": re.compile("[a-z]", re.IGNORECASE),
    "el": re.compile("[α-ωά-ώ]", re.IGNORECASE),
}
IMPOSSIBLE_PHONE = re.compile(r"\+357[ -]?00[ -]?\d{6}(?!\d)")
PHONE = re.compile(r"\d(?:[ ()-]{0,2}\d){7,}|\+\d{2}")  # in Cyprus: eight digits
LINK = re.compile(r"https?://[^\s)]+|www\.\S+|t\.me\S*|wa\.me\S*")


@pytest.fixture(scope="module")
def corpus() -> list[Message]:
    return compose(4000, 7)


def wrongly_labeled(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m.label is not None and m.label != int(m.is_let)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data.generate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


class TestSeed:
    def test_same_seed_gives_the_same_bytes_in_another_process(self, tmp_path):
        for name, hash_seed in (("a", "1"), ("b", "2")):
            subprocess.run(
                [sys.executable, "-m", "data.generate", "--out", str(tmp_path / name)],
                env={"PYTHONHASHSEED": hash_seed},
                cwd=ROOT,
                check=True,
            )
        assert contents(tmp_path / "a") == contents(tmp_path / "b")
        assert set(contents(tmp_path / "a")) == {DATABASE, LABELED}

    def test_another_seed_gives_other_texts_in_the_same_proportions(self, corpus):
        other = compose(4000, 8)
        assert Counter(m.kind for m in other) == Counter(m.kind for m in corpus)
        shared = {m.text for m in other} & {m.text for m in corpus}
        assert len(shared) < 400


class TestProportions:
    def test_languages_have_their_shares(self, corpus):
        assert len(corpus) == 4000
        assert len({m.identifier for m in corpus}) == 4000
        counts = Counter(m.language for m in corpus)
        assert set(counts) == set(LANGUAGES)
        for language, percent in LANGUAGES.items():
            assert 100 * counts[language] / 4000 == pytest.approx(percent, abs=4)

    def test_message_is_written_in_its_language(self, corpus):
        composed = [m for m in corpus if m.kind not in ("awkward", "bot notice", "scam", "reply")]
        for language, letters in LETTERS.items():
            texts = [m.text for m in composed if m.language == language]
            assert np.mean([bool(letters.search(text)) for text in texts]) > 0.99

    def test_kinds_have_their_shares(self, corpus):
        counts = Counter(m.kind for m in corpus)
        assert set(counts) == set(KINDS)
        for name, kind in KINDS.items():
            assert counts[name] == pytest.approx(4000 * kind.share / 100, abs=1)

    def test_most_messages_are_unique(self, corpus):
        assert 3600 < len({m.text for m in corpus}) < 4000

    def test_one_in_five_messages_is_a_let(self, corpus):
        assert np.mean([m.is_let for m in corpus]) == pytest.approx(0.21, abs=0.03)
        assert {m.kind for m in corpus if m.is_let} == {
            name for name, kind in KINDS.items() if kind.is_let
        }

    def test_two_near_misses_for_three_lets(self, corpus):
        near_misses = [m for m in corpus if KINDS[m.kind].is_near_miss]
        assert len(near_misses) / sum(m.is_let for m in corpus) == pytest.approx(2 / 3, abs=0.1)
        assert not any(m.is_let for m in near_misses)

    @pytest.mark.parametrize("count", [1, 7, 60])
    def test_few_messages_have_consecutive_identifiers(self, count):
        messages = compose(count, 1)
        assert [m.identifier for m in messages] == [str(n + 1) for n in range(count)]


class TestLabels:
    def test_four_fifths_of_messages_are_labelled(self, corpus):
        labels = [m.label for m in corpus if m.label is not None]
        assert len(labels) == 4000 * LABELED_SHARE
        assert set(labels) == {0, 1}

    def test_wrong_labels_have_their_share_and_are_balanced(self, corpus):
        wrong = wrongly_labeled(corpus)
        assert len(wrong) == 3200 * WRONG_SHARE
        assert sum(m.is_let for m in wrong) == len(wrong) / 2

    def test_only_near_misses_are_wrongly_positive(self, corpus):
        wrong = wrongly_labeled(corpus)
        assert all(KINDS[m.kind].is_near_miss for m in wrong if not m.is_let)

    def test_simple_model_is_neither_perfect_nor_useless(self, corpus):
        labeled = [m for m in corpus if m.label is not None]
        texts, labels = [m.text for m in labeled], np.array([m.label for m in labeled])
        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True),
            LogisticRegression(C=10, class_weight="balanced", solver="liblinear"),
        )
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        groups = near_duplicate_groups(texts, progress=False)
        decisions = cross_val_predict(model, texts, labels, groups=groups, cv=folds)
        assert (
            0.65 < f1_score(labels, decisions) < 0.85
        )  # 0.72; all positive: 0.34; the truth: 0.94


class TestTexts:
    def test_phone_numbers_cannot_exist(self, corpus):
        texts = [m.text for m in corpus]
        assert sum(bool(IMPOSSIBLE_PHONE.search(text)) for text in texts) > 500
        others = [IMPOSSIBLE_PHONE.sub("", LINK.sub("", text)) for text in texts]
        assert [text for text in others if PHONE.search(text)] == []

    def test_handles_cannot_exist(self, corpus):
        handles = [handle for m in corpus for handle in re.findall(r"@\w*", m.text)]
        assert len(handles) > 200
        assert {handle[:2] for handle in handles} == {"@_"}

    def test_links_are_of_example_com(self, corpus):
        links = [link for m in corpus for link in LINK.findall(m.text)]
        assert len(links) > 100
        assert all(link.startswith("https://example.com/") for link in links)

    def test_no_template_is_left_unexpanded(self, corpus):
        composed = [m.text for m in corpus if m.kind != "awkward"]
        assert [text for text in composed if re.search(r"[\[\]{}]|\w\|\w", text)] == []
        assert all(text == text.strip() != "" for text in composed)

    def test_every_phrase_resolves_and_every_awkward_text_occurs(self):
        messages = compose(40_000, 7)  # an unknown reference in any phrase raises KeyError
        assert set(AWKWARD) <= {m.text for m in messages if m.kind == "awkward"}

    def test_phrases_have_balanced_brackets(self):
        for language, tables in TABLES.items():
            for name, templates in tables.items():
                for template in templates:
                    assert template.count("[") == template.count("]"), (language, name, template)
                    assert template.count("{") == template.count("}"), (language, name, template)

    def test_adverts_are_reposted_with_small_changes(self, corpus):
        adverts = [m.text for m in corpus if KINDS[m.kind].closings]
        groups = near_duplicate_groups(adverts, progress=False)
        again = 1 - len(set(groups)) / len(groups)
        assert 0.08 < again < 0.25


class TestWrite:
    def test_files_are_readable_by_import_and_training(self, corpus, tmp_path):
        write(corpus, tmp_path)
        messages = read_messages(tmp_path / DATABASE)
        assert [(m.id, m.text) for m in messages] == [(m.identifier, m.text) for m in corpus]
        assert messages.report.skipped.total() == 0
        frame = read_labeled(tmp_path / LABELED)
        assert list(frame.itertuples(index=False, name=None)) == [
            (m.identifier, m.text, m.label) for m in corpus if m.label is not None
        ]

    def test_database_is_a_chat_dump(self, corpus, tmp_path):
        write(corpus[:5], tmp_path)
        with sqlite3.connect(tmp_path / DATABASE) as connection:
            rows = connection.execute("SELECT msg_id, msg FROM raw_rent_messages").fetchall()
        connection.close()
        assert rows == [(m.identifier, m.text) for m in corpus[:5]]

    def test_failed_write_keeps_the_old_files(self, corpus, tmp_path):
        write(corpus[:5], tmp_path)
        before = contents(tmp_path)
        broken = [*corpus[:50], corpus[50]._replace(text="\ud800", label=1)]
        with pytest.raises(UnicodeEncodeError):
            write(broken, tmp_path)
        assert contents(tmp_path) == before

    def test_failed_write_leaves_no_files(self, corpus, tmp_path, monkeypatch):
        def full(*_arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("data.generate._write_labeled", full)
        assert main(["--out", str(tmp_path), "--messages", "20"]) == 1
        assert contents(tmp_path) == {}


class TestCommand:
    def test_summary_names_files_and_counts(self, tmp_path, capsys):
        assert main(["--out", str(tmp_path / "new"), "--messages", "500"]) == 0
        out = capsys.readouterr().out
        assert f"{tmp_path / 'new' / DATABASE}: 500 messages" in out
        assert f"{tmp_path / 'new' / LABELED}: 400 labelled" in out

    @pytest.mark.parametrize("name", [DATABASE, LABELED])
    def test_existing_file_is_replaced_only_with_force(self, tmp_path, capsys, name):
        (tmp_path / name).write_text("mine")
        assert main(["--out", str(tmp_path), "--messages", "20"]) == 0
        assert contents(tmp_path)[name] == b"mine"
        assert set(contents(tmp_path)) == {DATABASE, LABELED}
        assert f"{tmp_path / name} is there already" in capsys.readouterr().out
        assert main(["--out", str(tmp_path), "--messages", "20", "--force"]) == 0
        assert contents(tmp_path)[name] != b"mine"

    def test_database_in_use_is_not_replaced_even_with_force(self, tmp_path, capsys):
        store = MessageStore.open(tmp_path / DATABASE)
        store.add([Imported("1", "mine")])
        assert main(["--out", str(tmp_path), "--messages", "20", "--force"]) == 1
        assert "has the database open" in capsys.readouterr().err
        assert store.get("1").text == "mine"

    def test_imported_messages_survive_a_second_run(self, tmp_path):
        main(["--out", str(tmp_path), "--messages", "20"])
        store = MessageStore.open(tmp_path / DATABASE)
        store.add([Imported("mine", "my own message")])
        store.close()
        (tmp_path / LABELED).unlink()
        main(["--out", str(tmp_path), "--messages", "20"])
        assert MessageStore.open(tmp_path / DATABASE).get("mine").text == "my own message"
        assert (tmp_path / LABELED).exists()

    def test_uncreatable_folder_fails_with_a_message(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        assert main(["--out", str(tmp_path / "file" / "below"), "--messages", "20"]) == 1
        assert "cannot write into" in capsys.readouterr().err

    @pytest.mark.parametrize("count", ["0", "-3", "many"])
    def test_invalid_count_is_rejected(self, tmp_path, count, capsys):
        with pytest.raises(SystemExit) as exit_:
            main(["--out", str(tmp_path), "--messages", count])
        assert exit_.value.code == 2
        assert "--messages" in capsys.readouterr().err
        assert contents(tmp_path) == {}
