"""Words for labels, as people and programs write them."""

LABELS = {
    **dict.fromkeys(("1", "1.0", "positive", "true", "yes", "да", "истина", "положительный"), 1),
    **dict.fromkeys(("0", "0.0", "negative", "false", "no", "нет", "ложь", "отрицательный"), 0),
}
"""Excel writes TRUE in the language of its user."""
ALLOWED = "0, 1, positive, negative, true, false, yes, no, да or нет"
WITHDRAWN = "withdrawn"
"""In our own exports: the person has taken the label back."""

_NO_LABELS = frozenset({"", "nan", "none", "null", "<na>", "n/a", "na", "-", WITHDRAWN})


def parse_label(value: str) -> int | None:
    """Return 0 or 1 for a label as people and tools write it, None for anything else."""
    return LABELS.get(value.strip().lower())


def is_unlabelled(value: str) -> bool:
    """Return whether a label is empty, as people and tools write it."""
    return value.strip().lower() in _NO_LABELS
