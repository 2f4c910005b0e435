"""Asks a running gateway: `python -m examples.classify [ADDRESS] [MODEL]`."""

import sys

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable

TEXTS = ("A film that I will not forget.", "Two hours I want back.")


def main(address: str = "127.0.0.1:50051", model: str = "sentiment") -> None:
    """Prints the best label of each text, or what went wrong and whether to come back."""
    with Conch(address, timeout_seconds=5) as conch:
        try:
            answer = conch.classify(TEXTS, model=model, top_k=1)
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for text, result in zip(TEXTS, answer.classifications, strict=True):
        print(f"{result.labels[0].label}  {result.labels[0].score:.3f}  {text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
