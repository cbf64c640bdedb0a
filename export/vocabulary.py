"""Vocabulary of the wheel's encoder, cut to Russian, Ukrainian, English and Greek.

multilingual-e5-small covers a hundred languages; nine tenths of its parameters are word vectors,
and a chat uses a twentieth of them. A removed piece is spelled with smaller ones; a character of a
removed script becomes the unknown token, never an error.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

SPECIAL_PIECES = 4  # <s> <pad> </s> <unk>, first in every vocabulary of this family
ALPHABETS = ("CYRILLIC", "GREEK")
LATIN_PIECES = 40_000  # 93 % of the Latin pieces in a bilingual chat; 80,046 would cost 15 MB more


def kept_pieces(pieces: Sequence[tuple[str, float]]) -> np.ndarray:
    """Return the ascending indices of the `(piece, log-probability)` pairs to keep.

    These are the special pieces, all Cyrillic and Greek pieces, everything without letters
    (digits, punctuation, emoji), every single Latin character, and the most probable pieces of
    unaccented Latin letters.
    """
    keep = set(range(min(SPECIAL_PIECES, len(pieces))))
    latin = []
    for index, (piece, log_probability) in enumerate(pieces):
        alphabets = {_alphabet(character) for character in piece if _is_letter(character)}
        if alphabets <= set(ALPHABETS) or (alphabets <= {"ASCII", "LATIN"} and len(piece) == 1):
            keep.add(index)
        elif alphabets == {"ASCII"}:
            latin.append((-log_probability, index))
    keep.update(index for _, index in sorted(latin)[:LATIN_PIECES])
    return np.array(sorted(keep))


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"  # letters and combining marks


def _alphabet(character: str) -> str:
    if character.isascii():
        return "ASCII"
    return unicodedata.name(character, "UNNAMED").split()[0]
