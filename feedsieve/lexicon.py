"""What a message's words say by themselves: a linear model of the pieces that words are made of."""

from collections.abc import Iterator, Sequence

import numpy as np

SHORTEST, LONGEST = 2, 5  # characters in a piece
MOST_WORDS, LONGEST_WORD = 20_000, 30  # that are remembered, 300 bytes each, 1,100 at most
_NONE = np.empty(0, np.int64)
EDGE = " "  # stands at both ends of a word, so that its beginning and its end are told apart


class Lexicon:
    """Scores texts by the pieces of their words, weighted as in TF-IDF.

    Pieces are the runs of 2 to 5 characters inside a word and its edges, in lower case. A piece
    that occurs n times counts 1 + ln(n), times its inverse document frequency, and a text's counts
    are scaled to unit length: what scikit-learn's `TfidfVectorizer(analyzer="char_wb",
    ngram_range=(2, 5), sublinear_tf=True)` computes, without scikit-learn.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        idf: np.ndarray,
        weights: np.ndarray,
        intercept: float,
    ) -> None:
        """`idf` (inverse document frequencies) and `weights` are those of `pieces`, (pieces,)."""
        self.pieces = list(pieces)
        self.idf = np.asarray(idf, np.float32)
        self.weights = np.asarray(weights, np.float32)
        self.intercept = float(intercept)
        self._row = {piece: row for row, piece in enumerate(self.pieces)}
        self._rows: dict[str, np.ndarray] = {}  # of words seen lately

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return a score a text, (texts,), 64-bit floats; above 0 speaks for positive.

        `texts` are plain (`feedsieve.text.plain`).
        """
        return np.array([self._score(text) for text in texts], np.float64)

    def _score(self, text: str) -> float:
        words = text.lower().split()
        rows = np.concatenate([self._rows_of(word) for word in words]) if words else _NONE
        if not len(rows):
            return self.intercept
        rows.sort()  # now equal ones are together
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        times = np.diff(firsts, append=len(rows))
        rows = rows[firsts]
        values = (1 + np.log(times)) * self.idf[rows]
        return float(values @ self.weights[rows] / np.sqrt(values @ values) + self.intercept)

    def _rows_of(self, word: str) -> np.ndarray:
        """Return the rows of the pieces of a word; words recur, and cutting them takes longest."""
        rows = self._rows.get(word)
        if rows is None:
            known = (self._row.get(piece) for piece in pieces(word))
            rows = np.array([row for row in known if row is not None], np.int64)
            if len(word) <= LONGEST_WORD:
                if len(self._rows) >= MOST_WORDS:
                    self._rows.clear()
                self._rows[word] = rows
        return rows


def pieces(word: str) -> Iterator[str]:
    """Yield the pieces of a word; of a short one all of it, edges and all."""
    edged = EDGE + word + EDGE
    for length in range(SHORTEST, LONGEST + 1):
        if length >= len(edged):
            yield edged
            break
        for start in range(len(edged) - length + 1):
            yield edged[start : start + length]
