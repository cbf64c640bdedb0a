"""The encoding of a text file: UTF-8, UTF-16, or cp1251, as Excel for Windows writes Russian."""

import codecs
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from feedsieve.message import InvalidFile

_CHUNK = 2**20
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",  # begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NAMES = {"utf-16-le": "UTF-16", "utf-16-be": "UTF-16, big-endian", "utf-8": "UTF-8"}
_CYRILLIC = ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic")
# By frequency in Russian; Ukrainian letters in the middle.
_RANKS = {
    **{letter: rank for rank, letter in enumerate("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё")},
    **dict.fromkeys("іїєґ", 15),
}
_SAMPLE = 2**16  # bytes that are looked at
_MARGIN = 1.5  # small letters of Macintosh are those of cp1251, which is more frequent
_UNLIKELY = 40  # rank of other letters, and of words with capitals in the middle
_PLAUSIBLE = 16  # mean rank; Russian has 9, letters at random 16 and more, other encodings 20
_SIGNS = frozenset("«»„“”‘’–—…№€•§°±·\u00ad")
_SIGN = re.compile(r"[^\x00-\x7f\w]")
_WORD = re.compile(r"[^\W\d_]+")
_NOT_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x80-\x9f]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding, and the bytes of byte order marks before the text."""

    codec: str
    mark: bytes = b""
    marks: int = 0  # some programs write the mark again and again

    @property
    def note(self) -> str | None:
        """A note for users; none for UTF-8."""
        if self.codec != "utf-8":
            return f"encoding: {_NAMES.get(self.codec, self.codec)}"
        return f"encoding: UTF-8 with {self.marks} byte order marks" if self.marks > 1 else None

    def open(self, path: Path) -> TextIO:
        """Open a file for reading, after its marks; line ends stay as they are. Raises OSError."""
        file = path.open("rb")
        file.seek(len(self.mark) * self.marks)
        return io.TextIOWrapper(file, self.codec, newline="")


def detect(path: Path) -> Encoding:
    """Return the encoding of a text file, which is read once. Raises InvalidFile.

    It is UTF-8 if all of the file is. cp1251 is taken from the words: charset-normalizer and
    chardet take a few Russian words for Arabic or Japanese ones.
    """
    try:
        with path.open("rb") as file:
            return _detect(path, file)
    except OSError as error:
        raise InvalidFile(f"{path}: {error.strerror or error}") from error


def _detect(path: Path, file: BinaryIO) -> Encoding:
    start = file.read(4096)
    for mark, codec in _MARKS.items():
        if start.startswith(mark):
            marks = 0
            while start.startswith(mark, marks * len(mark)):
                marks += 1
            encoding = Encoding(codec, mark, marks)
            break
    else:
        encoding = Encoding(_unmarked_utf16(start) or "utf-8")
    if encoding.codec != "utf-8":
        return encoding
    file.seek(len(encoding.mark) * encoding.marks)
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, is_ascii = 1, True
    while True:
        chunk = file.read(_CHUNK)
        held = decoder.getstate()[0]  # bytes of a character that the last chunk cut
        try:
            decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            content = held + chunk
            line = lines + content.count(b"\n", 0, error.start)
            place = f"{path}, line {line}: expected UTF-8 text; byte 0x{content[error.start]:02x}"
            sample = content[max(0, error.start - _SAMPLE // 2) :][:_SAMPLE]
            if encoding.marks or not is_ascii or not _is_other(sample):
                raise InvalidFile(
                    f"{place} is damaged; export it again, or drop what is damaged:"
                    " iconv -c -f utf-8 -t utf-8 IN > OUT"
                ) from error
            return _eight_bits(place, sample)
        if not chunk:
            return encoding
        lines += chunk.count(b"\n")
        is_ascii = is_ascii and chunk.isascii()


def _unmarked_utf16(start: bytes) -> str | None:
    """Return UTF-16 if the file begins as UTF-16 writes ASCII: a header does."""
    zeros = [byte == 0 for byte in start[:6]]
    for codec, pattern in (("utf-16-le", [False, True]), ("utf-16-be", [True, False])):
        if zeros == pattern * 3:
            return codec
    return None


def _is_other(content: bytes) -> bool:
    """Return whether most of what is not ASCII is not UTF-8."""
    text = content.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return wrong > len(re.findall("[^\x00-\x7f\ufffd]", text))


def _eight_bits(place: str, content: bytes) -> Encoding:
    """Return cp1251 if it makes the most plausible Russian. Raises InvalidFile."""
    ranks = {codec: _rank(content, codec) for codec in _CYRILLIC}
    best = min(ranks, key=ranks.__getitem__)
    if ranks["cp1251"] < min(ranks[best] + _MARGIN, _PLAUSIBLE):
        return Encoding("cp1251")
    guess = best if ranks[best] < _PLAUSIBLE else "ENCODING"
    raise InvalidFile(
        f"{place} is neither that nor plausible cp1251; save the file as UTF-8, or convert it:"
        f" iconv -f {guess} -t utf-8 IN > OUT"
    )


def _rank(content: bytes, codec: str) -> float:
    """Return the mean rank of the characters that are not ASCII; lower is more plausible."""
    text = content.decode(codec, "replace")
    if "\ufffd" in text or _NOT_TEXT.search(text):
        return _UNLIKELY
    signs = [sign for sign in _SIGN.findall(text) if sign not in _SIGNS]
    total, count = _UNLIKELY * len(signs), len(signs)
    for word in _WORD.findall(text):
        if not word.isascii():
            is_word = word.isupper() or word[1:].islower() or len(word) == 1
            ranks = _RANKS if is_word else {}
            total += sum(ranks.get(letter, _UNLIKELY) for letter in word.lower())
            count += len(word)
    return total / count if count else _UNLIKELY
