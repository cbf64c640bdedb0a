"""`feedsieve db check` names defects and changes nothing."""

import json

import pytest
from db_commands import change, damage, environment, failure, fill, place, run
from postgres_server import postgres
from stores import MODEL, score_all

from feedsieve.message import Message
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint

__all__ = ["environment", "place", "postgres"]


class TestCheck:
    def test_sound_store_is_counted(self, place, capsys):
        fill(place).close()
        assert run("check") == 0
        printed = capsys.readouterr().out
        assert "29 messages, 1 sources, 0 labels" in printed
        assert "defect" not in printed

    @pytest.mark.parametrize(
        ("statement", "defect"),
        [
            ("INSERT INTO scores VALUES ('model:gone', 'a', 0.5)", "scores of models"),
            ("DELETE FROM texts", "messages without the facts"),
            (
                "INSERT INTO labels (message, fingerprint, label, who, time, origin,"
                " is_ground_truth) VALUES ('gone', 'a', 'positive', 'p', '2026-01-01', 'o', '0')",
                "1 labels of messages that are not there",
            ),
            ("UPDATE feedsieve_revision SET version_num = '999'", "newer version of feedsieve"),
        ],
    )
    def test_defect_is_named_and_the_exit_code(self, place, capsys, statement, defect):
        fill(place).close()
        change(place, statement)
        assert run("check") == 1
        assert defect in capsys.readouterr().out

    def test_damage_is_named_as_json_too(self, tmp_path, environment, capsys):
        environment(tmp_path / "store.db")
        fill(tmp_path / "store.db", 3000).close()
        damage(tmp_path / "store.db")
        assert run("check", "--json") == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["problems"] and not answer["is_sound"]

    def test_scores_of_edited_texts_are_no_defect(self, place, capsys):
        store = MessageStore.open(place)
        store.add([Message("1", "text")])
        score_all(store, lambda text: 0.5)
        store.add([Message("1", "other text")])
        assert list(store.scores_by(MODEL)) == [fingerprint("text")]
        assert run("check") == 0
        assert "1 scores of earlier texts" in capsys.readouterr().out
        store.close()

    def test_missing_store_is_named_and_not_made(self, tmp_path, environment, capsys):
        environment(tmp_path / "store.db")
        assert "there is no such file" in failure(capsys, "check")
        assert not list(tmp_path.iterdir())
