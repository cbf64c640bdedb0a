"""A scatter plot of messages in which similar ones are close."""

import re
from collections.abc import Sequence
from html import escape
from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.express as px
from numpy.typing import NDArray
from plotly.graph_objects import Figure
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE

from feedsieve.scoring.model_store import ModelNotFound, load_scorer
from feedsieve.text import normalise, plain
from labeling.choose import vectors
from train.encoder.embedder import Embedder

WORDS = "words (latent semantic analysis)"  # source of the vectors without a model
_COMPONENTS = 50  # input of t-SNE; the rest of an embedding is noise
_PERPLEXITY = 30.0
_NAMING = 3  # words that name a cluster
_WORD = re.compile(r"\b[^\W\d_]{3,}\b")
_LONGEST, _WIDTH = 300, 60  # characters of a message, and of a line of it, on hover


def embed(texts: Sequence[str], model: str, threads: int, seed: int) -> tuple[NDArray, str]:
    """Return a vector per text, (texts, dimension), and the name of their source.

    The source is the encoder of the classifier `model`, or word vectors if there is no such model.
    """
    try:
        scorer = load_scorer(model, threads)
    except ModelNotFound:
        return vectors(texts, seed), WORDS
    return Embedder(scorer.encoder).embed(texts, "embed"), f"the encoder of {scorer.model}"


def project(rows: NDArray, seed: int) -> NDArray[np.float64]:
    """Return a point per row, (rows, 2), by t-SNE of the principal components.

    In t-SNE (van der Maaten and Hinton, JMLR 2008) neighbourhoods are meaningful, but sizes of
    clusters and distances between them are not.
    """
    count = len(rows)
    if count < 4:  # t-SNE needs neighbours
        return np.column_stack([np.arange(count), np.zeros(count)]).astype(np.float64)
    components = min(_COMPONENTS, *rows.shape)
    reduced = PCA(components, random_state=seed).fit_transform(rows)
    return TSNE(
        perplexity=min(_PERPLEXITY, (count - 1) / 3), init="random", random_state=seed
    ).fit_transform(reduced)


def cluster(
    texts: Sequence[str], rows: NDArray, count: int, seed: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Return each text's k-means cluster, (texts,), the largest 0, and a name for each cluster.

    `rows` are (texts, dimension). A name has the words with the highest mean TF-IDF.
    """
    count = min(count, len(np.unique(rows, axis=0)))
    labels = KMeans(count, n_init=4, random_state=seed).fit_predict(rows)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    labels = np.argsort(order)[labels]
    table = TfidfVectorizer(analyzer=_words, sublinear_tf=True)
    weights = table.fit_transform(texts)
    words = table.get_feature_names_out()
    names = []
    for number in range(count):
        mean = np.asarray(weights[labels == number].mean(axis=0)).ravel()
        best = [words[column] for column in np.argsort(-mean)[:_NAMING] if mean[column] > 0]
        names.append(f"{number + 1}: {', '.join(best)}")
    return labels, names


def _words(text: str) -> list[str]:
    return _WORD.findall(plain(text)) or ["no words"]


def hover(text: str) -> str:
    """Return a message for Plotly's hover box: shortened, wrapped, and escaped."""
    read = normalise(text)
    short = read if len(read) <= _LONGEST else read[:_LONGEST] + "…"
    return "<br>".join(escape(line) for line in wrap(short, _WIDTH))


def scatter(
    points: NDArray, clusters: NDArray[np.int64], names: Sequence[str], frame: pd.DataFrame
) -> Figure:
    """Return the plot of `points`, (messages, 2), coloured by cluster.

    `frame` has a row per point with `id`, `text` and `language`, shown on hover. A click on a
    cluster's name hides it; a double click hides all others.
    """
    table = pd.DataFrame(
        {
            "x": points[:, 0],
            "y": points[:, 1],
            "cluster": [escape(names[number]) for number in clusters],
            "id": frame["id"].map(escape).to_numpy(),
            "language": frame["language"].to_numpy(),
            "message": frame["text"].map(hover).to_numpy(),
        }
    )
    figure = px.scatter(
        table,
        x="x",
        y="y",
        color="cluster",
        custom_data=["id", "language", "message"],
        category_orders={"cluster": [escape(name) for name in names]},
        color_discrete_sequence=px.colors.qualitative.Dark24,
        height=650,
    )
    figure.update_traces(
        marker={"size": 5, "opacity": 0.75},
        hovertemplate="<b>%{customdata[0]}</b> %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(template="plotly_white", legend_title_text="", hoverlabel_align="left")
    return figure
