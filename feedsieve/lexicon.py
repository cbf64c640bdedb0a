"""What a message's words say by themselves: a linear model of the pieces that words are made of."""

from collections.abc import Iterator, Sequence

import numpy as np

EDGE = " "  # stands at both ends of a word, so that its beginning and its end are told apart
CHARACTERS_AT_ONCE = 16_384  # edges included, or one text: bounds memory
_DEAD, _ROOT = 0, 1  # places in the trie that are no piece's
_ROOM = 6  # places for each node at first: the more, the sooner all are placed
_CODE_POINTS = 0x110000


class Lexicon:
    """Scores texts by the pieces of their words, weighted as in TF-IDF.

    Pieces are runs of characters inside a word and its edges, in lower case. A piece that occurs n
    times counts 1 + ln(n), times its inverse document frequency, and a text's counts are scaled to
    unit length. Of the pieces of 2 to 5 characters this is what scikit-learn's
    `TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)` computes, without
    scikit-learn.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        idf: np.ndarray,
        weights: np.ndarray,
        intercept: float,
    ) -> None:
        """`idf` (inverse document frequencies) and `weights` are those of `pieces`, (pieces,).

        No piece may have an `EDGE` but at its ends.
        """
        self.pieces = list(pieces)
        self.idf = np.asarray(idf, np.float32)
        self.weights = np.asarray(weights, np.float32)
        self.intercept = float(intercept)
        self._trie = _Trie(self.pieces)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return a score a text, (texts,), 64-bit floats; above 0 speaks for positive.

        `texts` are plain (`feedsieve.text.plain`). The score of a text does not depend on those
        beside it.
        """
        return np.concatenate([np.empty(0), *map(self._score, _groups(texts))])

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        edged = [EDGE + text.lower() + EDGE for text in texts]
        places, rows = self._trie.find("".join(edged))
        owners = np.repeat(np.arange(len(texts)), [len(text) for text in edged])[places]
        bits = len(self.pieces).bit_length()
        found = owners << bits | rows
        if len(texts) << bits < 1 << 31:  # numbers of half the size are sorted in half the time
            found = found.astype(np.int32)
        found.sort()  # now equal ones are together
        lasts = np.flatnonzero(np.append(found[1:] != found[:-1], True)[: len(found)])
        times = np.diff(lasts, prepend=-1)
        found = found[lasts]
        owners, rows = found >> bits, found & (1 << bits) - 1
        values = (1 + np.log(times)) * self.idf[rows]
        products = np.bincount(owners, values * self.weights[rows], len(texts))
        lengths = np.sqrt(np.bincount(owners, values * values, len(texts)))
        return products / np.where(lengths, lengths, 1) + self.intercept


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield `texts`, in their order, as many at a time as have `CHARACTERS_AT_ONCE` characters."""
    start = size = 0
    for row, text in enumerate(texts):
        edged = len(text) + 2 * len(EDGE)
        if row > start and size + edged > CHARACTERS_AT_ONCE:
            yield texts[start:row]
            start, size = row, 0
        size += edged
    if start < len(texts):
        yield texts[start:]


class _Trie:
    """Finds every piece at every place of a text at once.

    A double array (Aoe, 1989, https://doi.org/10.1109/32.31365): the child of a node for a
    character is at the node's base plus the character's code, if that place says that it is the
    node's. Pieces have no edge within, so none is found across two words.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.longest = max(map(len, pieces), default=0)
        alphabet = sorted(set("".join(pieces)))
        self._codes = np.zeros(_CODE_POINTS, np.uint32)  # 0 is that of all that no piece has
        self._codes[[ord(one) for one in alphabet]] = np.arange(1, len(alphabet) + 1)
        nodes = {"": 0}  # by what they stand for, parents first
        parents = [0]
        for piece in pieces:
            for end in range(1, len(piece) + 1):
                if piece[:end] not in nodes:
                    nodes[piece[:end]] = len(nodes)
                    parents.append(nodes[piece[: end - 1]])
        last = np.array([ord(name[-1]) for name in nodes if name], np.int64)
        places, bases = _placed(np.array(parents[1:], np.intp), self._codes[last].astype(np.intp))
        size = int(max(places.max(), bases.max())) + len(alphabet) + 1
        self._bases, self._parents = np.zeros(size, np.intp), np.full(size, -1)
        self._rows = np.full(size, -1)
        self._bases[places] = bases
        self._parents[places[1:]] = places[parents[1:]]
        ends = np.array([nodes[piece] for piece in pieces], np.intp)
        self._rows[places[ends]] = np.arange(len(pieces))

    def find(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where in `text` pieces begin, and which they are: two arrays, (found,)."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        codes = self._codes.take(points).astype(np.intp)
        nodes = np.full(len(codes), _ROOT)
        places, rows = [], []
        for length in range(min(self.longest, len(codes))):
            nodes = nodes[: len(codes) - length]
            there = self._bases.take(nodes) + codes[length:]
            nodes = np.where(self._parents.take(there) == nodes, there, _DEAD)
            ended = self._rows.take(nodes)
            found = np.flatnonzero(ended >= 0)
            places.append(found)
            rows.append(ended[found])
        none = np.empty(0, np.int64)
        return np.concatenate([none, *places]), np.concatenate([none, *rows])


def _placed(parents: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each node is, and its base, so that no two are in one place: two arrays.

    Node 0 is the root; `parents` and `codes`, (nodes - 1,), are of the others. Bases are drawn at
    random until they fit, those of nodes with most children first, from more and more places.
    """
    count = len(parents) + 1
    size = _ROOM * count
    rng = np.random.default_rng(0)
    children = np.bincount(parents, minlength=count)
    bases = np.zeros(count, np.intp)
    taken = np.ones(_ROOT + 1, bool)  # those after it are free
    for fewest in 1 << np.arange(count.bit_length())[::-1]:
        waiting = np.flatnonzero((children >= fewest) & (children < 2 * fewest))
        edges = np.flatnonzero(np.isin(parents, waiting))
        while len(edges):
            bases[waiting] = rng.integers(0, size, len(waiting))
            wanted = bases[parents[edges]] + codes[edges]
            taken = np.append(taken, np.zeros(max(0, wanted.max() + 1 - len(taken)), bool))
            is_first = np.zeros(len(edges), bool)
            is_first[np.unique(wanted, return_index=True)[1]] = True
            bad = np.bincount(parents[edges], taken[wanted] | ~is_first, count)[parents[edges]] > 0
            taken[wanted[~bad]] = True
            edges = edges[bad]
            waiting = np.unique(parents[edges])
            size += len(edges)
    places = np.append(_ROOT, bases[parents] + codes)
    return places, bases
