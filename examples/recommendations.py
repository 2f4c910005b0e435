"""Recommends by vectors: `python -m examples.recommendations [ADDRESS] [MODEL]`.

Ship a model first, as it is: `conch ship PAIRS --task feature-extraction --no-training ...`
"""

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from conch.client import Conch
from conch.errors import ConchError
from conch.vectors import matrix

CATALOGUE = (
    "A lightweight text editor for the terminal with syntax highlighting",
    "A graphical editor for photos with layers and masks",
    "A web server that also balances loads and caches",
    "A fast reverse proxy for HTTP with automatic certificates",
    "Organise, tag and retouch large collections of pictures",
    "A library to parse and write PDF documents",
    "Sign, merge and split PDF files on the command line",
    "An editor of source code with completion and a debugger",
)


def main(address: str = "127.0.0.1:50051", model: str = "search") -> None:
    """Prints what is like each item, and what answers a search best."""
    try:
        with Conch(address, timeout_seconds=30) as conch:
            vectors = matrix(conch.embed(CATALOGUE, model=model))
            ranked = conch.rank("host a website", CATALOGUE, model=model, top_k=3).ranked
    except ConchError as error:
        sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for item, others in zip(CATALOGUE, similar(vectors, count=2), strict=True):
        print(f"{item}\n  like " + "\n       ".join(CATALOGUE[i] for i in others))
    print("\nhost a website")
    for place in ranked:
        print(f"  {place.score:.3f}  {CATALOGUE[place.index]}")


def similar(vectors: npt.NDArray[np.float32], *, count: int) -> Sequence[Sequence[int]]:
    """Returns the places of the `count` nearest others of each vector `(item, dimension)`, nearest first.

    Vectors have length 1, so that a product is a cosine. Keep them: a catalogue is embedded once.
    """
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1)[:, :count].tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
