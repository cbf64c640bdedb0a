"""Fine-tuning of a distilled student, with cross-fitted teachers."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from test_distil import LAYERS, distilled, embeddings
from test_finetune import COUNT, EPOCHS, fine_tuned, messages
from tiny_bert import save_tiny_bert

from train.data.folds import folds
from train.encoder.distil import Student
from train.encoder.finetune import FineTuned


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder") / "deep", layers=LAYERS)


@pytest.fixture(scope="module")
def student(encoder, tmp_path_factory) -> Student:
    return distilled(encoder, tmp_path_factory.mktemp("cache"))


def mix_up_logits(encoders: Iterable[Path]) -> None:
    """Give the logits of trained encoders to other messages."""
    for encoder in encoders:
        done = encoder / "done.json"
        values = json.loads(done.read_text(encoding="utf-8"))
        values["logits"].sort()
        done.write_text(json.dumps(values), encoding="utf-8")


class TestFineTuning:
    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory) -> Path:
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, encoder, student, cache) -> FineTuned:
        return fine_tuned(encoder, cache, student=student.source)

    @pytest.fixture
    def copied(self, tuned, tmp_path) -> Path:
        """A copy of the checkpoints of `tuned`."""
        return shutil.copytree(tuned.checkpoints, tmp_path / tuned.checkpoints.name)

    def test_fine_tuned_encoder_is_the_student(self, tuned, student):
        assert tuned.source.name == "deep, 2 of 4 layers, fine-tuned"
        assert tuned.source.model.config.num_hidden_layers == 2
        before, after = student.source.model.state_dict(), tuned.source.model.state_dict()
        assert before.keys() == after.keys()
        for name in before:
            trained = name.startswith("encoder.layer.")
            assert torch.equal(before[name], after[name]) != trained or "key.bias" in name, name

    def test_history_has_teachers_and_students(self, tuned):
        layers = {row["encoder"]: row["layers"] for row in tuned.history}
        assert layers == dict.fromkeys(range(1, 7), 4) | dict.fromkeys(range(7, 11), 2)
        evaluated = {row["encoder"] for row in tuned.history if "average_precision" in row}
        assert evaluated == {1, 2, 3, 7, 8, 9}
        best = [
            max(epochs, key=lambda epoch: epoch["average_precision"])["epoch"]
            for number in (7, 8, 9)
            if (epochs := [row for row in tuned.history if row["encoder"] == number])
        ]
        last = [row for row in tuned.history if row["encoder"] == 10]
        assert len(last) == round(np.mean(best))

    def test_out_of_fold_logits_predict_labels(self, tuned):
        assert average_precision_score(messages()[1], tuned.out_of_fold_logits) > 0.9

    def test_random_labels_are_not_predicted(self, encoder, student, tmp_path):
        labels = np.random.default_rng(3).integers(0, 2, COUNT)
        random = fine_tuned(encoder, tmp_path, labels, student=student.source)
        assert average_precision_score(labels, random.out_of_fold_logits) < 0.65
        parts = folds(labels, np.arange(COUNT), 7, 3)
        for number, (_rest, fold) in enumerate(parts, 7):  # the logits are the students'
            epochs = [row for row in random.history if row["encoder"] == number]
            best = max(row["average_precision"] for row in epochs)
            precision = average_precision_score(labels[fold], random.out_of_fold_logits[fold])
            assert precision == pytest.approx(best, abs=1e-6)

    def test_final_student_learns_from_the_teachers(self, encoder, student, tuned, copied):
        mix_up_logits(copied.glob("encoder-[123]"))
        [last] = copied.glob("student-*-last")
        shutil.rmtree(last)
        again = fine_tuned(encoder, copied.parent, student=student.source)
        assert again.out_of_fold_logits.tolist() == tuned.out_of_fold_logits.tolist()
        assert not np.allclose(again.head.weights, tuned.head.weights, atol=1e-3)

    def test_students_of_folds_learn_from_cross_fitted_teachers(
        self, encoder, student, tuned, copied
    ):
        mix_up_logits(copied.glob("encoder-without-1-2"))
        for of_fold in copied.glob("student-*-[123]"):
            shutil.rmtree(of_fold)
        again = fine_tuned(encoder, copied.parent, student=student.source)
        difference = np.abs(again.out_of_fold_logits - tuned.out_of_fold_logits)
        parts = folds(messages()[1], np.arange(COUNT), 7, 3)
        changed = [difference[fold].max() for _rest, fold in parts]
        assert changed[0] > 0.1 and changed[1] > 0.1
        assert changed[2] == 0  # its teachers are unchanged

    def test_two_folds_have_no_cross_fitted_teachers(self, encoder, student, tmp_path, monkeypatch):
        monkeypatch.setattr("train.encoder.finetune.FOLDS", 2)
        tuned = fine_tuned(encoder, tmp_path, student=student.source)
        assert {row["encoder"]: row["layers"] for row in tuned.history} == {
            **{1: 4, 2: 4},
            **{3: 2, 4: 2, 5: 2},
        }
        assert average_precision_score(messages()[1], tuned.out_of_fold_logits) > 0.9

    def test_label_does_not_affect_logits_of_its_own_fold(
        self, encoder, student, tmp_path, monkeypatch
    ):
        """With one epoch there is no early stopping by the fold."""
        _texts, labels = messages()
        parts = [
            (np.flatnonzero(np.arange(COUNT) % 3 != fold), np.arange(fold, COUNT, 3))
            for fold in (0, 1, 2)
        ]
        labels = np.random.default_rng(3).permutation(labels)
        monkeypatch.setattr("train.encoder.finetune.folds", lambda *_arguments: parts)
        flipped = labels.copy()
        flipped[parts[0][1]] = 1 - flipped[parts[0][1]]
        first, second = (
            fine_tuned(encoder, tmp_path, values, epochs=1, student=student.source)
            for values in (labels, flipped)
        )
        same = first.out_of_fold_logits == second.out_of_fold_logits
        assert same[parts[0][1]].all()
        assert not same[parts[1][1]].any() and not same[parts[2][1]].any()

    def test_head_on_embeddings_gives_the_logits_of_training(self, tuned):
        texts, labels = messages()
        logits = tuned.head.logits(embeddings(tuned.source, texts))
        assert average_precision_score(labels, logits) > 0.9

    def test_teachers_are_reused_for_another_student(
        self, encoder, student, tuned, cache, capsys, tmp_path
    ):
        other = distilled(encoder, tmp_path, (0, 1, 3))
        again = fine_tuned(encoder, cache, student=other.source)
        assert "6 of 10 encoders are done" in capsys.readouterr().out
        assert again.source.model.config.num_hidden_layers == 3
        assert again.history[:EPOCHS] == tuned.history[:EPOCHS]
        first = fine_tuned(encoder, cache, student=student.source)
        assert "10 of 10 encoders are done" in capsys.readouterr().out
        assert first.out_of_fold_logits.tolist() == tuned.out_of_fold_logits.tolist()
