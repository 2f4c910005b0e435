"""A writing assistant continues a text piece by piece: `python -m examples.writing [ADDRESS] [MODEL] [TEXT]`.

Made for a model of text-generation that was trained on novels; any other one writes on as well.
"""

import sys

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable

BEGINNING = "It was a cold evening, and Elizabeth had been sitting by the window for an hour, when"


def main(address: str = "127.0.0.1:50051", model: str = "writer", text: str = BEGINNING) -> None:
    """Prints a text and, as it comes, what the model writes after it; or what went wrong."""
    print(text, end="", flush=True)
    with Conch(address, timeout_seconds=120) as conch:
        try:
            pieces = conch.generate(
                text, model=model, max_tokens=80, temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=7
            )
            for answer in pieces:
                print(answer.piece.text, end="", flush=True)
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"\ntry again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"\n{error.code.name} {error.reason}: {error.message}")
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
