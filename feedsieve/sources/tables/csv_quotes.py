"""Rows whose quotes are not as CSV has them: escaped by backslashes, not doubled, or not closed."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

_MOST_CHARACTERS = 2**24  # in one field
_MOST_CLOSINGS = 12  # quotes that are tried as the end of a field
_AFTER_WORDS = tuple(" \t.,;:!?)…-–—/")
_LONE_BACKSLASH = re.compile(r'\\(?!["\\])')


class Lines:
    """The lines of a file; those of the current row can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._returned: deque[str] = deque()
        self.taken: list[str] = []  # lines of the current row

    def __iter__(self) -> Iterator[str]:
        """Take lines. What is given back needs another iterator."""
        take = self.taken.append
        while self._returned:
            line = self._returned.popleft()
            take(line)
            yield line
        for line in self._lines:
            take(line)
            yield line

    def give_back(self, keep: int) -> None:
        """Give back the lines of the row after the first `keep`."""
        self._returned.extendleft(reversed(self.taken[keep:]))
        del self.taken[keep:]


def parser(
    lines: Iterable[str],
    delimiter: str,
    *,
    has_backslashes: bool = False,
    skips_spaces: bool = False,
) -> Iterator[list[str]]:
    """Yield the rows of strict CSV; csv.Error is raised for a row, not for those after it.

    `has_backslashes`: a backslash escapes a quote or a backslash, and is a character elsewhere.
    """
    csv.field_size_limit(_MOST_CHARACTERS)
    return csv.reader(
        map(_double_lone_backslashes, lines) if has_backslashes else lines,
        delimiter=delimiter,
        escapechar="\\" if has_backslashes else None,
        skipinitialspace=skips_spaces,
        strict=True,
    )


def _double_lone_backslashes(line: str) -> str:
    return _LONE_BACKSLASH.sub(r"\\\\", line) if "\\" in line else line


def mend(lines: Lines, width: int, delimiter: str) -> list[str] | None:
    """Return the current row read in another way, if one gives `width` fields.

    `lines` stands after the row then, and where it stood otherwise; both need another iterator.
    """
    taken = len(lines.taken)
    first = lines.taken[0] if taken else ""
    if '\\"' in first:
        lines.give_back(0)
        row = _row(lines, width, delimiter, has_backslashes=True)
        if row:
            return row
    row = _row([first], width, delimiter, skips_spaces=True) or _literal(first, width, delimiter)
    if row:
        lines.give_back(1)
        return row
    lines.give_back(0)
    deque(islice(lines, taken), maxlen=0)
    return None


def _row(
    lines: Iterable[str],
    width: int,
    delimiter: str,
    *,
    has_backslashes: bool = False,
    skips_spaces: bool = False,
) -> list[str] | None:
    rows = parser(lines, delimiter, has_backslashes=has_backslashes, skips_spaces=skips_spaces)
    try:
        row = next(rows, None)
    except csv.Error:
        return None
    return row if row and len(row) == width else None


def is_csv(row: str, delimiter: str) -> bool:
    """Return whether the quotes of a row are as RFC 4180 has them, so that it has one meaning."""
    end = re.escape(delimiter)
    field = f'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{end}\r\n]*+)'
    return bool(re.fullmatch(f"{field}(?:{end}{field})*+[\r\n]*", row))


def _literal(line: str, width: int, delimiter: str) -> list[str] | None:
    """Return the fields of a row on one line, with quotes that are not doubled."""
    text = line.rstrip("\r\n")
    failed: set[tuple[int, int]] = set()  # or else the time would grow exponentially

    def split(start: int, width: int) -> list[str] | None:
        """Return the best way to split the text from `start` on into `width` fields."""
        if (start, width) in failed:
            return None
        for value, end in _fields(text, start, delimiter):
            if width == 1 and end == len(text):
                return [value]
            if width > 1 and end < len(text) and (others := split(end + 1, width - 1)):
                return [value, *others]
        failed.add((start, width))
        return None

    return split(0, width)


def _fields(text: str, start: int, delimiter: str) -> Iterator[tuple[str, int]]:
    """Yield values and ends that the field at `start` may have.

    A quote that ends a field stands before a delimiter. Quotes at the start of `"Sea" view` belong
    to the text; those of `"The "Sea" hotel"` do not, since no end of a word follows the second.
    """
    if not text.startswith('"', start):
        end = text.find(delimiter, start)
        end = len(text) if end < 0 else end
        yield text[start:end], end
        return
    inner = text.find('"', start + 1)
    quoted = list(islice(_closed(text, start, delimiter), _MOST_CLOSINGS))
    as_text = list(_as_text(text, start, inner, delimiter))
    following = text[inner + 1 : inner + 2]
    is_in_text = inner >= 0 and following != delimiter and following in _AFTER_WORDS
    yield from [*as_text, *quoted] if is_in_text else [*quoted, *as_text]


def _closed(text: str, start: int, delimiter: str) -> Iterator[tuple[str, int]]:
    """Yield the values and ends for each quote that may close the field, doubled quotes last."""
    doubled = []
    for match in re.finditer(f'"+(?={re.escape(delimiter)}|$)', text[start + 1 :]):
        value = text[start + 1 : start + match.end()].replace('""', '"')
        if len(match[0]) % 2:
            yield value, start + 1 + match.end()
        else:
            doubled.append((value, start + 1 + match.end()))
    yield from doubled


def _as_text(text: str, start: int, inner: int, delimiter: str) -> Iterator[tuple[str, int]]:
    """Yield the value with its quotes, if there are as many opening as closing ones."""
    if inner < 0:
        return
    end = text.find(delimiter, inner)
    end = len(text) if end < 0 else end
    if text.count('"', start, end) % 2 == 0:
        yield text[start:end], end


def line_of_open_quote(lines: Iterable[str], delimiter: str) -> int:
    """Return in which line of a row, from 0, the quote opens that is not closed."""
    text, start = "".join(lines), 0
    end = re.escape(delimiter)
    field = re.compile(f'"[^"]*+(?:""[^"]*+)*+"(?={end}|[\r\n]|$)|(?!")[^{end}]*+')
    while (match := field.match(text, start)) and match.end() < len(text):
        start = match.end() + 1
    return len(re.findall("\r\n|\r|\n", text[:start]))
