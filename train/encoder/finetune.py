"""Fine-tuning: the encoder's upper layers are trained on labels, in folds and then on all messages.

Encoders of the folds give out-of-fold logits, which LightGBM is trained on. The final encoder is
trained on all messages; its targets are half label, half out-of-fold probability, so that wrong
labels are not memorised (as Reed et al., https://arxiv.org/abs/1412.6596, do with a model's own
predictions). The output of the frozen lower layers is computed once. docs/decisions/finetuning.md
has what was tried.

With a distilled student (train/encoder/distil.py) the folds are trained twice: as teachers, whose
out-of-fold logits are the final student's soft targets, and as students, whose out-of-fold logits
LightGBM is trained on, because a student serves. The students of the folds learn from cross-fitted
teachers: the soft target of a message comes from a teacher trained neither on its fold nor on the
fold that the student predicts. All layers of a student are trained.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export.sources import Source
from feedsieve import text
from feedsieve.files import one_run_at_a_time
from feedsieve.scoring.features import Head
from train.data.folds import SEED, folds
from train.encoder import checkpoints, cross_fitting, layers, supervised, trainer
from train.encoder.checkpoints import run_key
from train.encoder.cross_fitting import (
    CrossFitting,
    Run,
    describe_progress,
    fold_runs,
    soft_targets,
    teacher_runs,
)
from train.encoder.layers import UpperLayers
from train.encoder.supervised import Recipe

FOLDS = 3
FROZEN = 2 / 3  # of the layers, from the bottom; see docs/decisions/finetuning.md
MAX_TOKENS = 160  # longer messages are truncated, in training and in service
RATE = 2e-4  # AdamW's peak learning rate
STUDENT_RATE = 1.5e-4  # for a student, all of whose layers are trained


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned encoder."""

    source: Source
    head: Head  # on its embeddings
    out_of_fold_logits: np.ndarray  # (texts,)
    history: list[dict[str, float]]  # encoder, layers, epoch, loss, average precision on the fold
    checkpoints: Path | None = None

    def remove_checkpoints(self) -> None:
        """Remove all that is needed to resume, once the model is saved."""
        if self.checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)


def finetune(
    source: Source,
    texts: Sequence[str],
    labels: np.ndarray,
    groups: np.ndarray,
    seed: int,
    cache: Path,
    student: Source | None = None,
) -> FineTuned:
    """Return `source`, or the `student` if there is one, fine-tuned on `labels`.

    `labels`, 0 or 1, and `groups`, each within one of the `FOLDS` folds, are (texts,). The final
    encoder is trained for the mean of the folds' best epochs. A `student` has the tokenizer of
    `source`, which then only teaches. Checkpoints below `cache` let an interrupted run with the
    same arguments resume.

    Raises ValueError if a label has fewer than two groups, AlreadyRunning, and CheckpointError.
    """
    source = replace(source, max_tokens=min(MAX_TOKENS, source.max_tokens))
    parts = list(folds(labels, groups, SEED, FOLDS))
    code = [sys.modules[__name__], checkpoints, cross_fitting, supervised, layers, trainer, text]
    facts = [list(texts), labels.tolist(), [fold.tolist() for _rest, fold in parts], seed]
    folder = cache / f"finetune-{run_key(source, code, facts)}"
    frozen = round(FROZEN * source.model.config.num_hidden_layers)
    recipe = Recipe(source, frozen, RATE, "encoder")
    student_recipe = None
    if student:
        student = replace(student, max_tokens=source.max_tokens)
        name = f"student-{run_key(student, [], [])}"
        student_recipe = Recipe(student, 0, STUDENT_RATE, name)
    with one_run_at_a_time(folder):
        return _finetune(recipe, student_recipe, texts, labels, parts, seed, folder)


def _finetune(
    recipe: Recipe,
    student: Recipe | None,
    texts: Sequence[str],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    folder: Path,
) -> FineTuned:
    """Train the encoders of the folds, those of a student if there is one, and the final one."""
    served = student or recipe
    encoders = fold_runs(recipe, parts)
    teachers = teacher_runs(recipe, parts) if student else {}
    students = fold_runs(student, parts) if student else []
    all_rows, no_rows = np.arange(len(texts)), np.empty(0, np.int64)
    final = Run(served, f"{served.name}-last", all_rows, no_rows, early_stopping=False)
    runs = [*encoders, *teachers.values(), *students, final]
    if description := describe_progress(folder, runs):
        print(description)
    hidden = recipe.frozen_states(texts)
    student_hidden = student.frozen_states(texts) if student else hidden
    with tqdm(desc="fine-tune", unit="step", smoothing=0.05) as bar:
        fitting = CrossFitting(runs, labels, seed, folder, bar)
        logits, epochs = fitting.out_of_fold(encoders, hidden, [labels] * len(parts))
        targets = soft_targets(labels, logits)
        if student:
            student_targets = fitting.student_targets(teachers, parts, hidden)
            logits, epochs = fitting.out_of_fold(students, student_hidden, student_targets)
        trained = fitting.train(final, student_hidden, targets, epochs)
    model = UpperLayers(served.source, served.frozen)
    model.load_state_dict(trained.weights)
    return FineTuned(
        model.merged(served.source), model.exported_head(), logits, fitting.history, folder
    )
