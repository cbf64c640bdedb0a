"""Changes to a message that must not change its score."""

import re
from collections.abc import Callable

NAMES = {"Ирина": "Светлана", "Андрей": "Николай", "Anna": "Helen"}
SIGNATURES = {"ru": "Светлана", "en": "Helen", "el": "Ελένη"}

_PHONE = re.compile(r"(?<=\+357 00 )\d{6}")
_NAME = re.compile("|".join(NAMES))
_EMOJI = re.compile("[\U0001f300-\U0001faff☀✅🙏]\ufe0f? ?")
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_OTHER_DIGITS = str.maketrans("0123456789", "7890123456")


def _with_white_space(text: str) -> str:
    """Return `text` with blank lines around it, and tabs, double and no-break spaces inside."""
    blanks = ("  ", "\t", "\u00a0", " ")
    words = text.split(" ")
    spaced = (word + blanks[number % len(blanks)] for number, word in enumerate(words))
    return f" \n{''.join(spaced)}\n\n"


# Functions of a message and its language; they return the message if there is nothing to change.
CHANGES: dict[str, Callable[[str, str], str]] = {
    "another phone number": lambda text, _: _PHONE.sub(
        lambda match: match[0].translate(_OTHER_DIGITS), text
    ),
    "lower case": lambda text, _: text.lower(),
    "capitals": lambda text, _: text.upper(),
    "emoji added": lambda text, _: f"🔥 {text} 🙂✨",
    "emoji removed": lambda text, _: _EMOJI.sub("", text),
    "hashtags added": lambda text, _: f"{text}\n#кипр #cyprus",
    "white space": lambda text, _: _with_white_space(text),
    "line ends": lambda text, _: _SENTENCE_END.sub("\r\n\r\n", text).replace(", ", ",\r\n"),
    "another name": lambda text, _: _NAME.sub(lambda match: NAMES[match[0]], text),
    "name added": lambda text, language: f"{text}\n{SIGNATURES[language]}",
}
