import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from limits import largest_file
from serving import ROOT
from sklearn.metrics import average_precision_score
from test_finetune import COUNT, EPOCHS, fine_tuned, messages
from test_pipeline import LABELED, Run, python, train
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, compose, write
from export import onnx, sources
from export.sources import Source
from feedsieve.files import RunningAlready, one_run_at_a_time
from feedsieve.store import MessageStore
from feedsieve.text import plain
from train import classifier, distil
from train import finetune as finetuning
from train.__main__ import main
from train.data import read_labeled, split
from train.distil import NoSuchLayers, Student, imitate, layers_of, texts_to_imitate
from train.finetune import FineTuned
from train.layers import ImitatingLayers, tokens_of
from train.trainer import CannotKeep, StepProgress

LAYERS = 4
KEPT = (0, 3)
# Run and killed by itself, without a word, in the middle of the third epoch.
KILLED = """
import os, sys
from collections.abc import Iterable
from pathlib import Path
from test_distil import imitating
from train.trainer import StepProgress

step = StepProgress.on_step_end
def die(self, args, state, control, **rest):
    step(self, args, state, control, **rest)
    if state.epoch > 2.4:
        os._exit(9)
StepProgress.on_step_end = die
imitating(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def stopped(*_arguments, **_named):
    raise KeyboardInterrupt


def imitating(encoder: Path, cache: Path, kept: tuple[int, ...] = KEPT) -> Student:
    texts, _labels = messages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "RATE", 0.003)  # few and short messages need larger steps
        return imitate(sources.load(str(encoder)), kept, texts, 7, cache)


def last_layer(source: Source, texts: list[str]) -> list[torch.Tensor]:
    """Return what transformers itself makes of each text, (tokens, hidden size)."""
    with torch.inference_mode():
        return [
            source.model(torch.tensor([tokens])).last_hidden_state[0]
            for tokens in tokens_of(source, texts)
        ]


def embeddings(source: Source, texts: list[str]) -> np.ndarray:
    """Return what is exported of the encoder for each text, (texts, hidden size)."""
    tokens = source.tokenizer([plain(text) for text in texts], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = onnx.pooled(source)(tokens.input_ids, tokens.attention_mask)
    return found["embedding"].numpy()


def error(one: Source, other: Source, texts: list[str]) -> float:
    pairs = zip(last_layer(one, texts), last_layer(other, texts), strict=True)
    return float(np.mean([(a - b).square().mean().item() for a, b in pairs]))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder") / "deep", layers=LAYERS)


@pytest.fixture(scope="module")
def source(encoder) -> Source:
    return sources.load(str(encoder))


@pytest.fixture(scope="module")
def student(encoder, tmp_path_factory) -> Student:
    return imitating(encoder, tmp_path_factory.mktemp("cache"))


class TestLayers:
    @pytest.mark.parametrize(
        ("asked", "kept"),
        [
            ("12", tuple(range(12))),
            ("6", (0, 2, 4, 7, 9, 11)),
            ("4", (0, 4, 8, 11)),
            ("3", (0, 6, 11)),
            ("2", (0, 11)),
            ("1", (0,)),
            ("1,5,10", (1, 5, 10)),
            ("all", tuple(range(12))),
        ],
    )
    def test_of_twelve(self, asked, kept):
        assert layers_of(asked, 12) == kept

    def test_any_number_is_kept_with_the_first_and_the_last(self):
        for count in range(2, 25):
            for number in range(2, count + 1):
                kept = layers_of(str(number), count)
                assert len(set(kept)) == number
                assert (kept[0], kept[-1]) == (0, count - 1)
                assert np.ptp(np.diff(kept)) <= 2

    @pytest.mark.parametrize(("count", "kept"), [(12, (0, 6, 11)), (3, (0, 1, 2)), (2, (0, 1))])
    def test_three_are_kept_if_nobody_says_how_many(self, count, kept):
        assert layers_of(None, count) == kept

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ("0", "keep 1 to 12, not 0"),
            ("13", "keep 1 to 12, not 13"),
            ("0,12", "layers 0 to 11: name some of them, rising, not 0,12"),
            ("3,1", "rising"),
            ("1,1", "rising"),
            ("1,", "neither"),
            ("-1", "neither"),
            ("six", "neither"),
            ("", "neither"),
        ],
    )
    def test_what_cannot_be_is_refused(self, asked, said):
        with pytest.raises(NoSuchLayers, match=said):
            layers_of(asked, 12)


class TestTexts:
    def test_none_of_the_test_part_and_none_twice(self):
        learnt = ["Flat to let", "House", "house"]
        stored = ["flat  to LET", "garden", "Garden 🙂", "secret", "SECRET 🙂", "room"]
        assert texts_to_imitate(learnt, [], [], 7) == ["Flat to let", "house"]
        found = texts_to_imitate(learnt, stored, ["Secret"], 7)
        assert found[:2] == ["Flat to let", "house"]
        assert sorted(found[2:]) == ["garden", "room"]

    def test_there_is_a_most(self, monkeypatch):
        monkeypatch.setattr(distil, "MOST_TEXTS", 5)
        learnt, stored = ["a", "b", "c"], [f"text {number}" for number in range(50)]
        found = texts_to_imitate(learnt, stored, [], 7)
        assert found[:3] == learnt and len(set(found)) == 5
        assert found == texts_to_imitate(learnt, stored[::-1], [], 7)
        assert found != texts_to_imitate(learnt, stored, [], 8)
        assert texts_to_imitate(stored, learnt, [], 7) == stored[:5]


class TestImitating:
    def test_the_loss_falls_to_a_fraction(self, student):
        losses = [epoch["loss"] for epoch in student.history]
        assert [epoch["epoch"] for epoch in student.history] == list(range(1, distil.EPOCHS + 1))
        assert losses[-1] < losses[0] / 3

    def test_the_student_gives_what_the_whole_gives_of_other_texts_too(self, student, source):
        texts = ["bead cage rent", "flat hedge", "face a bad egg rent", "dead bee flat gage hag"]
        untaught = distil._some_layers(source, KEPT)
        assert error(student.source, source, texts) < error(untaught, source, texts) / 2

    def test_the_student_is_a_bert_of_these_layers(self, student, source, tmp_path):
        assert student.source.name == "deep, 2 of 4 layers"
        assert (student.layers, student.of, student.texts) == (KEPT, LAYERS, COUNT)
        assert student.source.model.config.num_hidden_layers == 2
        student.source.model.save_pretrained(tmp_path / "saved")
        source.tokenizer.save_pretrained(tmp_path / "saved")
        again = sources.load(str(tmp_path / "saved"))
        assert error(again, student.source, messages()[0][:3]) == 0

    def test_it_begins_as_these_layers(self, source):
        begun = distil._some_layers(source, (1, 3)).model.state_dict()
        whole = source.model.state_dict()
        for name, values in begun.items():
            name = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
            assert torch.equal(values, whole[name])
        assert source.model.config.num_hidden_layers == LAYERS

    def test_only_layers_learn(self, student, source):
        before, after = source.model.state_dict(), student.source.model.state_dict()
        for name, values in after.items():
            if not name.startswith("encoder.layer."):
                assert torch.equal(values, before[name])
        assert not torch.equal(
            after["encoder.layer.1.output.dense.weight"],
            before["encoder.layer.3.output.dense.weight"],
        )

    def test_the_loss_is_the_share_of_variance_that_is_missed(self, source, tmp_path):
        """Of real tokens alone, though texts of other lengths are beside them."""
        texts = messages()[0][:20]
        tokens = tokens_of(source, texts)
        targets = distil._Targets.write(tmp_path, source, tokens)
        lessons = distil.Lessons(tokens, targets.rows(tokens, source.model.config.hidden_size))
        exact = last_layer(source, texts)
        for row, states in enumerate(exact):
            assert lessons[row]["targets"].numpy() == pytest.approx(states.numpy(), abs=0.05)
        small = distil._some_layers(source, KEPT)
        model = ImitatingLayers(small, targets.variance).eval()
        batch = distil._Collate(small.model.embeddings)([lessons[row] for row in range(20)])
        missed = torch.cat(last_layer(small, texts)) - torch.cat(exact)
        variance = torch.cat(exact).var(dim=0, correction=0).mean().item()
        assert targets.variance == pytest.approx(variance, rel=0.01)
        with torch.inference_mode():
            loss = model(**batch)["loss"].item()
        assert loss == pytest.approx(missed.square().mean().item() / variance, rel=0.02)

    def test_long_texts_are_cut(self, source, tmp_path, monkeypatch):
        monkeypatch.setattr(distil, "MAX_TOKENS", 10)
        texts = ["flat " * 50, "flat"]
        student = imitate(source, KEPT, texts, 7, tmp_path)
        assert [len(row) for row in tokens_of(student.source, texts)] == [10, 3]


class TestResuming:
    def test_killed_in_its_third_epoch_it_ends_as_if_it_had_not_been(
        self, encoder, student, tmp_path, capsys, monkeypatch
    ):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        command = [sys.executable, "-c", KILLED, encoder, tmp_path]
        killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
        assert killed.returncode == 9, killed.stderr
        taken = []
        monkeypatch.setattr(
            StepProgress,
            "on_step_end",
            lambda _self, _arguments, state, _control, **_rest: taken.append(state.global_step),
        )
        again = imitating(encoder, tmp_path)
        assert taken[0] == 2 * COUNT // 16 + 1
        shown = capsys.readouterr()
        assert f"resuming imitation: 2 of {distil.EPOCHS} epochs are done" in shown.out
        assert "what to imitate" not in shown.err
        assert [epoch["epoch"] for epoch in again.history] == list(range(1, distil.EPOCHS + 1))
        expected = student.source.model.state_dict()
        for name, values in again.source.model.state_dict().items():
            assert values.numpy() == pytest.approx(expected[name].numpy(), abs=1e-4), name

    def test_killed_while_the_whole_was_asked_it_is_asked_again(self, encoder, tmp_path, capsys):
        with largest_file(20_000), pytest.raises(CannotKeep, match="is the disk full"):
            imitating(encoder, tmp_path)
        capsys.readouterr()
        imitating(encoder, tmp_path)
        assert "what to imitate: 100%" in capsys.readouterr().err

    def test_a_disk_that_is_full_when_an_epoch_ends_is_named(self, encoder, tmp_path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distil.LengthTrainer, "train", stopped)
            with pytest.raises(KeyboardInterrupt):
                imitating(encoder, tmp_path)
        [_told] = tmp_path.glob("distil-*/targets.json")
        with largest_file(20_000), pytest.raises(CannotKeep, match="is the disk full"):
            imitating(encoder, tmp_path)

    def test_progress_tells_the_loss(self, encoder, tmp_path, capsys):
        imitating(encoder, tmp_path)
        steps = distil.EPOCHS * COUNT // 16
        shown = capsys.readouterr().err
        assert f"{steps}/{steps}" in shown and "loss=" in shown

    def test_two_at_the_same_work_are_refused(self, encoder, student):
        with one_run_at_a_time(student.kept), pytest.raises(RunningAlready, match="let it end"):
            imitating(encoder, student.kept.parent)

    def test_what_is_done_is_not_done_again(self, encoder, tmp_path, monkeypatch, capsys):
        first = imitating(encoder, tmp_path)
        kept = {path.name for path in first.kept.iterdir()}
        assert kept == {"done.json", "lock", "state.safetensors"}
        monkeypatch.setattr(distil, "LengthTrainer", None)
        again = imitating(encoder, tmp_path)
        assert "done before" in capsys.readouterr().out
        assert error(again.source, first.source, ["let a flat"]) == 0
        first.forget()
        assert list(tmp_path.iterdir()) == []

    def test_other_layers_are_another_run(self, encoder, student):
        other = imitating(encoder, student.kept.parent, (0, 1, 3))
        assert other.kept != student.kept
        other.forget()
        assert student.kept.is_dir()


def mix_up_verdicts(encoders: Iterable[Path]) -> None:
    """Let encoders that are kept have said what they said of other messages."""
    for encoder in encoders:
        done = encoder / "done.json"
        told = json.loads(done.read_text(encoding="utf-8"))
        told["verdicts"].sort()
        done.write_text(json.dumps(told), encoding="utf-8")


class TestLearningLabels:
    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory) -> Path:
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(scope="class")
    @classmethod
    def tuned(cls, encoder, student, cache) -> FineTuned:
        return fine_tuned(encoder, cache, student=student.source)

    def test_the_student_is_what_is_left(self, tuned, student):
        assert tuned.source.name == "deep, 2 of 4 layers, fine-tuned"
        assert tuned.source.model.config.num_hidden_layers == 2
        before, after = student.source.model.state_dict(), tuned.source.model.state_dict()
        assert before.keys() == after.keys()
        for name in before:
            learnt = name.startswith("encoder.layer.")
            assert torch.equal(before[name], after[name]) != learnt or "key.bias" in name, name

    def test_encoders_of_both_kinds_are_told(self, tuned):
        layers = {row["encoder"]: row["layers"] for row in tuned.history}
        assert layers == dict.fromkeys(range(1, 7), 4) | dict.fromkeys(range(7, 11), 2)
        watched = {row["encoder"] for row in tuned.history if "average_precision" in row}
        assert watched == {1, 2, 3, 7, 8, 9}
        best = [
            max(epochs, key=lambda epoch: epoch["average_precision"])["epoch"]
            for number in (7, 8, 9)
            if (epochs := [row for row in tuned.history if row["encoder"] == number])
        ]
        last = [row for row in tuned.history if row["encoder"] == 10]
        assert len(last) == round(np.mean(best))

    def test_verdicts_tell_labels_that_the_students_had_not_seen(self, tuned):
        assert average_precision_score(messages()[1], tuned.verdicts) > 0.9

    def test_labels_by_chance_cannot_be_told(self, encoder, student, tmp_path):
        labels = np.random.default_rng(3).integers(0, 2, COUNT)
        by_chance = fine_tuned(encoder, tmp_path, labels, student=student.source)
        assert average_precision_score(labels, by_chance.verdicts) < 0.65
        folds = [fold for _rest, fold in classifier.folds(labels, np.arange(COUNT), 7, 3)]
        for number, fold in enumerate(folds, 7):  # the verdicts are those of the students
            told = [row for row in by_chance.history if row["encoder"] == number]
            best = max(row["average_precision"] for row in told)
            found = average_precision_score(labels[fold], by_chance.verdicts[fold])
            assert found == pytest.approx(best, abs=1e-6)

    def test_the_last_one_learns_what_large_encoders_said(self, encoder, student, tmp_path):
        first = fine_tuned(encoder, tmp_path, student=student.source)
        mix_up_verdicts(first.kept.glob("encoder-[123]"))
        [last] = first.kept.glob("student-*-last")
        shutil.rmtree(last)
        again = fine_tuned(encoder, tmp_path, student=student.source)
        assert again.verdicts.tolist() == first.verdicts.tolist()
        assert not np.allclose(again.head.weights, first.head.weights, atol=1e-3)

    def test_those_of_the_folds_learn_what_saw_neither_fold_nor_label(
        self, encoder, student, tmp_path
    ):
        first = fine_tuned(encoder, tmp_path, student=student.source)
        mix_up_verdicts(first.kept.glob("encoder-without-1-2"))
        for of_fold in first.kept.glob("student-*-[123]"):
            shutil.rmtree(of_fold)
        again = fine_tuned(encoder, tmp_path, student=student.source)
        folds = classifier.folds(messages()[1], np.arange(COUNT), 7, 3)
        changed = [np.abs(again.verdicts - first.verdicts)[fold].max() for _rest, fold in folds]
        assert changed[0] > 0.1 and changed[1] > 0.1
        assert changed[2] == 0  # nothing of what it was advised by

    def test_two_folds_have_no_third_to_advise_them(self, encoder, student, tmp_path, monkeypatch):
        monkeypatch.setattr(finetuning, "FOLDS", 2)
        tuned = fine_tuned(encoder, tmp_path, student=student.source)
        assert {row["encoder"]: row["layers"] for row in tuned.history} == {
            **{1: 4, 2: 4},
            **{3: 2, 4: 2, 5: 2},
        }
        assert average_precision_score(messages()[1], tuned.verdicts) > 0.9

    def test_a_label_reaches_no_verdict_on_its_own_fold(
        self, encoder, student, tmp_path, monkeypatch
    ):
        """One epoch, so that there is none to choose by the fold."""
        _texts, labels = messages()
        parts = [
            (np.flatnonzero(np.arange(COUNT) % 3 != fold), np.arange(fold, COUNT, 3))
            for fold in (0, 1, 2)
        ]
        labels = np.random.default_rng(3).permutation(labels)
        monkeypatch.setattr(finetuning.classifier, "folds", lambda *_arguments: parts)
        turned = labels.copy()
        turned[parts[0][1]] = 1 - turned[parts[0][1]]
        first, second = (
            fine_tuned(encoder, tmp_path, told, epochs=1, student=student.source).verdicts
            for told in (labels, turned)
        )
        same = first == second
        assert same[parts[0][1]].all()
        assert not same[parts[1][1]].any() and not same[parts[2][1]].any()

    def test_the_head_says_of_an_embedding_what_training_saw(self, tuned):
        texts, labels = messages()
        verdicts = tuned.head.logits(embeddings(tuned.source, texts))
        assert average_precision_score(labels, verdicts) > 0.9

    def test_large_encoders_serve_another_student(
        self, encoder, student, tuned, cache, capsys, tmp_path
    ):
        other = imitating(encoder, tmp_path, (0, 1, 3))
        again = fine_tuned(encoder, cache, student=other.source)
        assert "6 of 10 encoders are done" in capsys.readouterr().out
        assert again.source.model.config.num_hidden_layers == 3
        assert again.history[:EPOCHS] == tuned.history[:EPOCHS]
        first = fine_tuned(encoder, cache, student=student.source)
        assert "10 of 10 encoders are done" in capsys.readouterr().out
        assert first.verdicts.tolist() == tuned.verdicts.tolist()


class TestTraining:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("train")
        write(compose(400, 7), folder)
        save_tiny_bert(folder / "tiny", layers=LAYERS)
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, folder) -> Run:
        return train(folder, "report", "--finetune", "--distil", "2", "--db", DATABASE)

    def test_the_student_is_served(self, trained):
        told = trained.metrics["distillation"]
        assert (told["layers"], told["of"]) == ([0, 3], LAYERS)
        assert len(told["history"]) == distil.EPOCHS
        name, version = trained.metrics["encoder_tag"].split(":")
        model = trained.folder / "bentoml" / "models" / name / version
        assert '"tiny, 2 of 4 layers, fine-tuned"' in (model / "encoder.json").read_text()

    def test_messages_of_the_store_teach_and_those_of_the_test_part_do_not(self, trained):
        parts = split(read_labeled(trained.folder / LABELED), 7, progress=False)
        own, withheld = parts.train["msg"].tolist(), parts.test["msg"].tolist()
        store = MessageStore.open(trained.folder / DATABASE)
        stored = [message.text for message in store.read_all()]
        store.close()
        taught = texts_to_imitate(own, stored, withheld, 7)
        assert trained.metrics["distillation"]["texts"] == len(taught)
        assert len(taught) > len({plain(text) for text in own})
        unseen = {plain(text) for text in withheld} - {plain(text) for text in own}
        assert unseen and not unseen & {plain(text) for text in taught}

    def test_report_and_card_tell_of_it(self, trained):
        assert "<small>4 layers</small>" in trained.report
        assert "<small>2 layers</small>" in trained.report
        tag = trained.metrics["classifier_tag"].replace(":", "/")
        card = (trained.folder / "bentoml" / "models" / tag / "card.md").read_text("utf-8")
        assert "Distillation: layers 0, 3 of 4, which first imitated the whole" in card
        assert "3 encoders of 4 layers" in card and "3 encoders of 2 layers" in card
        assert "--finetune --distil 2 --seed 7" in card

    def test_nothing_is_kept_once_the_models_are_saved(self, trained):
        left = {path.name.partition("-")[0] for path in (trained.folder / "cache").iterdir()}
        assert not left & {"distil", "finetune"}

    def test_more_layers_than_there_are_is_refused(self, folder):
        asked = ["--data", LABELED, "--encoder", "tiny", "--report", "refused", "--no-track"]
        done = python("-m", "train", *asked, "--finetune", "--distil", "5", cwd=folder)
        assert done.returncode == 1
        assert "train: the encoder has 4 layers: keep 1 to 4, not 5" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--distil", "2"], "--distil makes the encoder that --finetune teaches"),
            (["--finetune", "--distil", "two"], "numbers like 0,4,8,11, or all, not 'two'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, monkeypatch, capsys, arguments, said):
        monkeypatch.setattr(sys, "argv", ["train", "--data", LABELED, *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert said in capsys.readouterr().err
