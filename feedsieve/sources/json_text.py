"""JSON documents and JSON Lines."""

import json
from typing import Any

_SPACES = " \t\n\r\ufeff"


def parse(text: str) -> Any:
    """Return a JSON document; of several, one after the other or one a line, the list of them.

    Raises `ValueError` with the line of what is not JSON.
    """
    decode = json.JSONDecoder().raw_decode
    documents, start = [], 0
    while (start := _skip(text, start)) < len(text):
        try:
            document, start = decode(text, start)
        except json.JSONDecodeError as error:
            is_open = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
            end = "; the file is cut short" if is_open else ""
            raise ValueError(f"line {error.lineno}: expected JSON; {error.msg}{end}") from error
        except RecursionError:
            raise ValueError("expected JSON; it is nested too deeply") from None
        documents.append(document)
    return documents[0] if len(documents) == 1 else documents


def _skip(text: str, start: int) -> int:
    """Return where the next document begins."""
    while start < len(text) and text[start] in _SPACES:
        start += 1
    return start
