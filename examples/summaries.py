"""Gives long texts a title: `python -m examples.summaries [ADDRESS] [MODEL]`.

Four beams, no three words twice, at most 16 tokens. A text that was too long for the model says so: its
title knows nothing of the rest.
"""

import sys

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable

TEXTS = (
    "This package contains the documentation of a library for reading and writing images in many formats. "
    "It describes every function with an example.",
    "A command line tool that downloads pages from the web. It follows links, waits between requests and "
    "goes on where it was interrupted.",
)


def main(address: str = "127.0.0.1:50051", model: str = "summaries") -> None:
    """Prints the title that the model gives each text."""
    with Conch(address, timeout_seconds=30) as conch:
        try:
            response = conch.summarize(
                TEXTS, model=model, num_beams=4, max_new_tokens=16, no_repeat_ngram_size=3
            )
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for text, summary in zip(TEXTS, response.summaries, strict=True):
        note = "  (of its beginning alone)" if summary.tokens.truncated else ""
        print(f"{text[:60]}...\n  {summary.text}{note}")


if __name__ == "__main__":
    main(*sys.argv[1:])
