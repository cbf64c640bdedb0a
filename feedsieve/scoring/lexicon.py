"""A linear model over character n-grams, in numpy."""

from collections.abc import Iterator, Sequence

import numpy as np

EDGE = " "  # stands at both ends of a word, so that pieces at its ends differ from those within
MAX_CHARACTERS = 16_384  # of texts scored together, edges included; bounds memory
_DEAD, _ROOT = 0, 1  # slots of the trie that belong to no piece
_SLOTS = 6  # for each node at first: more slots mean fewer collisions
_CODE_POINTS = 0x110000


class Lexicon:
    """Scores texts by their pieces (character n-grams), weighted by TF-IDF.

    Pieces are runs of characters inside a word and its edges, in lower case. A piece that occurs n
    times counts (1 + ln n) * idf, and a text's counts are scaled to unit length. With pieces of 2
    to 5 characters this equals scikit-learn's `TfidfVectorizer(analyzer="char_wb", ngram_range=(2,
    5), sublinear_tf=True)` and a linear model, without scikit-learn.
    """

    def __init__(
        self, pieces: Sequence[str], idf: np.ndarray, weights: np.ndarray, intercept: float
    ) -> None:
        """`idf` (inverse document frequencies) and `weights` are those of `pieces`, (pieces,).

        A piece may have an `EDGE` only at its ends.
        """
        self.pieces = list(pieces)
        self.idf = np.asarray(idf, np.float32)
        self.weights = np.asarray(weights, np.float32)
        self.intercept = float(intercept)
        self._trie = _Trie(self.pieces)

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return a logit for each text, (texts,), 64-bit floats; above 0 speaks for positive.

        `texts` are plain (`feedsieve.text.plain`). The logit of a text does not depend on the
        batch, to the last bit.
        """
        return np.concatenate([np.empty(0), *map(self._score, _groups(texts))])

    def _score(self, texts: Sequence[str]) -> np.ndarray:
        edged = [EDGE + text.lower() + EDGE for text in texts]
        positions, rows = self._trie.find("".join(edged))
        owners = np.repeat(np.arange(len(texts)), [len(text) for text in edged])[positions]
        bits = len(self.pieces).bit_length()
        matches = owners << bits | rows
        if len(texts) << bits < 1 << 31:  # 32-bit integers sort twice as fast
            matches = matches.astype(np.int32)
        matches.sort()
        lasts = np.flatnonzero(np.append(matches[1:] != matches[:-1], True)[: len(matches)])
        times = np.diff(lasts, prepend=-1)
        matches = matches[lasts]
        owners, rows = matches >> bits, matches & (1 << bits) - 1
        values = (1 + np.log(times)) * self.idf[rows]
        products = np.bincount(owners, values * self.weights[rows], len(texts))
        lengths = np.sqrt(np.bincount(owners, values * values, len(texts)))
        return products / np.where(lengths, lengths, 1) + self.intercept


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield `texts` in order, in groups of up to `MAX_CHARACTERS` characters, at least one text."""
    start = size = 0
    for row, text in enumerate(texts):
        edged = len(text) + 2 * len(EDGE)
        if row > start and size + edged > MAX_CHARACTERS:
            yield texts[start:row]
            start, size = row, 0
        size += edged
    if start < len(texts):
        yield texts[start:]


class _Trie:
    """Finds all pieces at all positions of a text, one length at a time.

    A double array (Aoe, 1989, https://doi.org/10.1109/32.31365): the child of a node for a
    character is in slot base(node) + code(character), if the parent of that slot is the node.
    Pieces have no edge within, so none matches across two words.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self.longest = max(map(len, pieces), default=0)
        alphabet = sorted(set("".join(pieces)))
        self._codes = np.zeros(_CODE_POINTS, np.uint32)  # 0: in no piece
        self._codes[[ord(character) for character in alphabet]] = np.arange(1, len(alphabet) + 1)
        nodes = {"": 0}  # by prefix, parents first
        parents = [0]
        for piece in pieces:
            for end in range(1, len(piece) + 1):
                if piece[:end] not in nodes:
                    nodes[piece[:end]] = len(nodes)
                    parents.append(nodes[piece[: end - 1]])
        last = np.array([ord(prefix[-1]) for prefix in nodes if prefix], np.int64)
        slots, bases = _place(np.array(parents[1:], np.intp), self._codes[last].astype(np.intp))
        size = int(max(slots.max(), bases.max())) + len(alphabet) + 1
        self._bases, self._parents = np.zeros(size, np.intp), np.full(size, -1)
        self._rows = np.full(size, -1)
        self._bases[slots] = bases
        self._parents[slots[1:]] = slots[parents[1:]]
        ends = np.array([nodes[piece] for piece in pieces], np.intp)
        self._rows[slots[ends]] = np.arange(len(pieces))

    def find(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the start and the row of each match in `text`: two arrays, (matches,)."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        codes = self._codes.take(points).astype(np.intp)
        nodes = np.full(len(codes), _ROOT)
        positions, rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for length in range(min(self.longest, len(codes))):
            nodes = nodes[: len(codes) - length]
            children = self._bases.take(nodes) + codes[length:]
            nodes = np.where(self._parents.take(children) == nodes, children, _DEAD)
            ends = self._rows.take(nodes)
            starts = np.flatnonzero(ends >= 0)
            positions.append(starts)
            rows.append(ends[starts])
        return np.concatenate(positions), np.concatenate(rows)


def _place(parents: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slot and the base of each node, so that no two nodes share a slot: two arrays.

    Node 0 is the root; `parents` and `codes`, (nodes - 1,), are of the others. Bases are drawn at
    random until the children fit, for nodes with most children first, from a growing range.
    """
    count = len(parents) + 1
    size = _SLOTS * count
    rng = np.random.default_rng(0)
    children = np.bincount(parents, minlength=count)
    bases = np.zeros(count, np.intp)
    taken = np.ones(_ROOT + 1, bool)  # slots from here on are free
    for fewest in 1 << np.arange(count.bit_length())[::-1]:
        waiting = np.flatnonzero((children >= fewest) & (children < 2 * fewest))
        edges = np.flatnonzero(np.isin(parents, waiting))
        while len(edges):
            bases[waiting] = rng.integers(0, size, len(waiting))
            wanted = bases[parents[edges]] + codes[edges]
            taken = np.append(taken, np.zeros(max(0, wanted.max() + 1 - len(taken)), bool))
            is_first = np.zeros(len(edges), bool)
            is_first[np.unique(wanted, return_index=True)[1]] = True
            collides = taken[wanted] | ~is_first
            again = np.bincount(parents[edges], collides, count)[parents[edges]] > 0
            taken[wanted[~again]] = True
            edges = edges[again]
            waiting = np.unique(parents[edges])
            size += len(edges)
    return np.append(_ROOT, bases[parents] + codes), bases
