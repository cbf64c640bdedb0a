import os
from pathlib import Path

import numpy as np
import pytest
import torch
from limits import largest_file
from python_process import run_python
from serving import ROOT
from test_finetune import COUNT, messages
from tiny_bert import save_tiny_bert

from export import onnx, sources
from export.sources import Source
from feedsieve.files import AlreadyRunning, one_run_at_a_time
from feedsieve.text import plain
from train.encoder.checkpoints import CheckpointError
from train.encoder.distil import (
    EPOCHS,
    Examples,
    Student,
    _initial_student,
    collate,
    distil,
    mean_variance,
    teacher_states,
    transfer_set,
)
from train.encoder.layer_choice import InvalidLayers, choose_layers
from train.encoder.layers import StudentLayers, tokenize
from train.encoder.trainer import LengthGroupedTrainer, StepProgress

LAYERS = 4
KEPT = (0, 3)
# Kills itself in the middle of the third epoch.
KILLED = """
import os, sys
from collections.abc import Iterable
from pathlib import Path
from test_distil import distilled
from train.encoder.trainer import StepProgress

step = StepProgress.on_step_end
def die(self, args, state, control, **rest):
    step(self, args, state, control, **rest)
    if state.epoch > 2.4:
        os._exit(9)
StepProgress.on_step_end = die
distilled(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def interrupt(*_arguments, **_named):
    raise KeyboardInterrupt


def distilled(encoder: Path, cache: Path, kept: tuple[int, ...] = KEPT) -> Student:
    texts, _labels = messages()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.encoder.distil.RATE", 0.003)  # few and short messages need more
        return distil(sources.load(str(encoder)), kept, texts, 7, cache)


def last_layer(source: Source, texts: list[str]) -> list[torch.Tensor]:
    """Return the last hidden states by transformers, (tokens, hidden size) each."""
    with torch.inference_mode():
        return [
            source.model(torch.tensor([tokens])).last_hidden_state[0]
            for tokens in tokenize(source, texts)
        ]


def embeddings(source: Source, texts: list[str]) -> np.ndarray:
    """Return the embeddings of the exported graph, (texts, hidden size)."""
    tokens = source.tokenizer([plain(text) for text in texts], padding=True, return_tensors="pt")
    with torch.inference_mode():
        outputs = onnx.pooled(source)(tokens.input_ids, tokens.attention_mask)
    return outputs["embedding"].numpy()


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
    return distilled(encoder, tmp_path_factory.mktemp("cache"))


class TestChooseLayers:
    @pytest.mark.parametrize(
        ("choice", "kept"),
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
    def test_layers_out_of_twelve(self, choice, kept):
        assert choose_layers(choice, 12) == kept

    def test_layers_are_spread_from_first_to_last(self):
        for count in range(2, 25):
            for number in range(2, count + 1):
                kept = choose_layers(str(number), count)
                assert len(set(kept)) == number
                assert (kept[0], kept[-1]) == (0, count - 1)
                assert np.ptp(np.diff(kept)) <= 2

    @pytest.mark.parametrize(("count", "kept"), [(12, (0, 6, 11)), (3, (0, 1, 2)), (2, (0, 1))])
    def test_default_is_three_layers(self, count, kept):
        assert choose_layers(None, count) == kept

    @pytest.mark.parametrize(
        ("choice", "message"),
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
    def test_impossible_choice_is_rejected(self, choice, message):
        with pytest.raises(InvalidLayers, match=message):
            choose_layers(choice, 12)


class TestTransferSet:
    def test_held_out_texts_and_duplicates_are_left_out(self):
        labelled = ["Flat to let", "House", "house"]
        stored = ["flat  to LET", "garden", "Garden 🙂", "secret", "SECRET 🙂", "room"]
        assert transfer_set(labelled, [], [], 7) == ["Flat to let", "house"]
        texts = transfer_set(labelled, stored, ["Secret"], 7)
        assert texts[:2] == ["Flat to let", "house"]
        assert sorted(texts[2:]) == ["garden", "room"]

    def test_size_is_limited(self, monkeypatch):
        monkeypatch.setattr("train.encoder.distil.MAX_TEXTS", 5)
        labelled, stored = ["a", "b", "c"], [f"text {number}" for number in range(50)]
        texts = transfer_set(labelled, stored, [], 7)
        assert texts[:3] == labelled and len(set(texts)) == 5
        assert texts == transfer_set(labelled, stored[::-1], [], 7)
        assert texts != transfer_set(labelled, stored, [], 8)
        assert transfer_set(stored, labelled, [], 7) == stored[:5]


class TestDistil:
    def test_loss_falls_to_a_fraction(self, student):
        losses = [epoch["loss"] for epoch in student.history]
        assert [epoch["epoch"] for epoch in student.history] == list(range(1, EPOCHS + 1))
        assert losses[-1] < losses[0] / 3

    def test_student_reproduces_the_teacher_on_other_texts(self, student, source):
        texts = ["bead cage rent", "flat hedge", "face a bad egg rent", "dead bee flat gage hag"]
        initial = _initial_student(source, KEPT)
        assert error(student.source, source, texts) < error(initial, source, texts) / 2

    def test_student_is_a_bert_of_these_layers(self, student, source, tmp_path):
        assert student.source.name == "deep, 2 of 4 layers"
        assert (student.layers, student.teacher_layers, student.texts) == (KEPT, LAYERS, COUNT)
        assert student.source.model.config.num_hidden_layers == 2
        student.source.model.save_pretrained(tmp_path / "saved")
        source.tokenizer.save_pretrained(tmp_path / "saved")
        again = sources.load(str(tmp_path / "saved"))
        assert error(again, student.source, messages()[0][:3]) == 0

    def test_student_starts_as_these_layers(self, source):
        initial = _initial_student(source, (1, 3)).model.state_dict()
        whole = source.model.state_dict()
        for name, values in initial.items():
            name = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
            assert torch.equal(values, whole[name])
        assert source.model.config.num_hidden_layers == LAYERS

    def test_embedding_layer_is_frozen(self, student, source):
        before, after = source.model.state_dict(), student.source.model.state_dict()
        for name, values in after.items():
            if not name.startswith("encoder.layer."):
                assert torch.equal(values, before[name])
        assert not torch.equal(
            after["encoder.layer.1.output.dense.weight"],
            before["encoder.layer.3.output.dense.weight"],
        )

    def test_loss_is_a_fraction_of_the_variance(self, source, tmp_path):
        """Padding does not count."""
        texts = messages()[0][:20]
        tokens = tokenize(source, texts)
        outputs = teacher_states(tmp_path / "targets", source, tokens)
        variance = mean_variance(outputs)
        examples = Examples(tokens, outputs)
        exact = last_layer(source, texts)
        for row, states in enumerate(exact):
            assert examples[row]["targets"].numpy() == pytest.approx(states.numpy(), abs=0.05)
        small = _initial_student(source, KEPT)
        model = StudentLayers(small, variance).eval()
        batch = collate(small.model.embeddings.eval(), [examples[row] for row in range(20)])
        missed = torch.cat(last_layer(small, texts)) - torch.cat(exact)
        exact_variance = torch.cat(exact).var(dim=0, correction=0).mean().item()
        assert variance == pytest.approx(exact_variance, rel=0.01)
        with torch.inference_mode():
            loss = model(**batch)["loss"].item()
        assert loss == pytest.approx(missed.square().mean().item() / exact_variance, rel=0.02)

    def test_long_texts_are_truncated(self, source, tmp_path, monkeypatch):
        monkeypatch.setattr("train.encoder.distil.MAX_TOKENS", 10)
        texts = ["flat " * 50, "flat"]
        student = distil(source, KEPT, texts, 7, tmp_path)
        assert [len(row) for row in tokenize(student.source, texts)] == [10, 3]


class TestResuming:
    def test_killed_run_resumes_to_the_same_result(
        self, encoder, student, tmp_path, capsys, monkeypatch
    ):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        killed = run_python("-c", KILLED, encoder, tmp_path, cwd=ROOT, env=environment)
        assert killed.returncode == 9, killed.stderr
        steps_taken = []
        monkeypatch.setattr(
            StepProgress,
            "on_step_end",
            lambda _self, _arguments, state, _control, **_rest: steps_taken.append(
                state.global_step
            ),
        )
        again = distilled(encoder, tmp_path)
        assert steps_taken[0] == 2 * COUNT // 16 + 1
        shown = capsys.readouterr()
        assert f"resuming distillation: 2 of {EPOCHS} epochs are done" in shown.out
        assert "teacher outputs" not in shown.err
        assert [epoch["epoch"] for epoch in again.history] == list(range(1, EPOCHS + 1))
        expected = student.source.model.state_dict()
        for name, values in again.source.model.state_dict().items():
            assert values.numpy() == pytest.approx(expected[name].numpy(), abs=1e-4), name

    def test_incomplete_teacher_outputs_are_computed_again(self, encoder, tmp_path, capsys):
        with largest_file(20_000), pytest.raises(CheckpointError, match="is the disk full"):
            distilled(encoder, tmp_path)
        capsys.readouterr()
        distilled(encoder, tmp_path)
        assert "teacher outputs: 100%" in capsys.readouterr().err

    def test_full_disk_at_a_checkpoint_is_named(self, encoder, tmp_path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LengthGroupedTrainer, "train", interrupt)
            with pytest.raises(KeyboardInterrupt):
                distilled(encoder, tmp_path)
        [_complete] = tmp_path.glob("distil-*/targets")
        with largest_file(20_000), pytest.raises(CheckpointError, match="is the disk full"):
            distilled(encoder, tmp_path)

    def test_progress_shows_the_loss(self, encoder, tmp_path, capsys):
        distilled(encoder, tmp_path)
        steps = EPOCHS * COUNT // 16
        shown = capsys.readouterr().err
        assert f"{steps}/{steps}" in shown and "loss=" in shown

    def test_second_run_with_the_same_arguments_is_rejected(self, encoder, student):
        with (
            one_run_at_a_time(student.checkpoints),
            pytest.raises(AlreadyRunning, match="wait until it ends"),
        ):
            distilled(encoder, student.checkpoints.parent)

    def test_complete_run_is_loaded(self, encoder, tmp_path, monkeypatch, capsys):
        first = distilled(encoder, tmp_path)
        files = {path.name for path in first.checkpoints.iterdir()}
        assert files == {"done.json", "lock", "state.safetensors"}
        monkeypatch.setattr("train.encoder.distil.LengthGroupedTrainer", None)
        again = distilled(encoder, tmp_path)
        assert "complete already" in capsys.readouterr().out
        assert error(again.source, first.source, ["let a flat"]) == 0
        first.remove_checkpoints()
        assert list(tmp_path.iterdir()) == []

    def test_other_layers_have_other_checkpoints(self, encoder, student):
        other = distilled(encoder, student.checkpoints.parent, (0, 1, 3))
        assert other.checkpoints != student.checkpoints
        other.remove_checkpoints()
        assert student.checkpoints.is_dir()
