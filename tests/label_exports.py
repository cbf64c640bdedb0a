"""Tasks, annotations and rows of labelled messages, as Label Studio and others export them."""

import json
from pathlib import Path

TIME = "2026-01-05T10:00:00Z"
TEXTS = ("Продам велосипед", "Кто потерял ключи?", "Урок гитары в субботу")


def result(*choices: str, name: str = "label", kind: str = "choices") -> dict:
    value = {kind: list(choices)}
    return {"value": value, "from_name": name, "to_name": "msg", "type": kind}


def annotation(*choices: str, by: object = 1, **more) -> dict:
    results = [result(*choices)] if choices else []
    times = {"created_at": TIME, "updated_at": TIME}
    return {"completed_by": by, "result": results, "was_cancelled": False, **times, **more}


def task(number: int, *annotations: dict, data: dict | None = None, **more) -> dict:
    data = data or {"msg_id": f"{number}", "msg": TEXTS[number - 1]}
    return {"id": 500 + number, "data": data, "annotations": list(annotations), **more}


def row(number: int, label: object, **more) -> dict:
    return {"msg_id": f"{number}", "msg": TEXTS[number - 1], "label": label, **more}


def studio_row(number: int, label: object, by: object = 1) -> dict:
    return row(number, label, id=500 + number, annotator=by, annotation_id=9, updated_at=TIME)


def as_csv(*rows: dict, delimiter: str = ",") -> str:
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    return "\n".join(lines) + "\n"


def as_lines(*documents: object) -> str:
    return "\n".join(json.dumps(document, ensure_ascii=False) for document in documents) + "\n"


def written(path: Path, content: object, encoding: str = "utf-8") -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    return path


YES, NO = annotation("positive"), annotation("negative")
PLAIN = row(1, "1"), row(2, "0")
