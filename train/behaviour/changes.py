"""Changes to a message that must not change its score."""

import re
from collections.abc import Callable, Mapping

_NUMBER = re.compile(r"\+[\d ]{2,12}\d{6}(?!\d)")  # international telephone number
_EMOJI = re.compile("[\U0001f300-\U0001faff☀✅🙏]\ufe0f? ?")
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_OTHER_DIGITS = str.maketrans("0123456789", "7890123456")

Change = Callable[[str, str], str]


def changes(
    names: Mapping[str, str], signatures: Mapping[str, str], hashtags: str
) -> dict[str, Change]:
    """Return functions of a message and its language, by name.

    They return the message if there is nothing to change. `names` are replaced by others,
    `signatures` are names to add, by language, and `hashtags` are added.
    """
    name = re.compile("|".join(map(re.escape, names)) or r"(?!)")
    return {
        "another phone number": lambda text, _: _NUMBER.sub(_other_number, text),
        "lower case": lambda text, _: text.lower(),
        "capitals": lambda text, _: text.upper(),
        "emoji added": lambda text, _: f"🔥 {text} 🙂✨",
        "emoji removed": lambda text, _: _EMOJI.sub("", text),
        "hashtags added": lambda text, _: f"{text}\n{hashtags}" if hashtags else text,
        "white space": lambda text, _: _with_white_space(text),
        "line ends": lambda text, _: _SENTENCE_END.sub("\r\n\r\n", text).replace(", ", ",\r\n"),
        "another name": lambda text, _: name.sub(lambda match: names[match[0]], text),
        "name added": lambda text, language: (
            f"{text}\n{signatures[language]}" if language in signatures else text
        ),
    }


def _other_number(number: re.Match[str]) -> str:
    """Return the telephone number with other digits at its end: the country stays."""
    return number[0][:-6] + number[0][-6:].translate(_OTHER_DIGITS)


def _with_white_space(text: str) -> str:
    """Return `text` with blank lines around it, and tabs, double and no-break spaces inside."""
    blanks = ("  ", "\t", "\u00a0", " ")
    words = text.split(" ")
    spaced = (word + blanks[number % len(blanks)] for number, word in enumerate(words))
    return f" \n{''.join(spaced)}\n\n"
