"""Translates package descriptions: `python -m examples.translation [ADDRESS] [MODEL]`.

Asks twice: greedily, which is quick, and by four beams, which look further. A translation that reached
the most tokens allowed is marked, because its end is missing.
"""

import sys
from collections.abc import Sequence

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable
from conch.v1 import inference_pb2

TEXTS = (
    "debugging symbols for the audio player",
    "documentation for the mail server",
    "small game for children, written in Python",
)


def main(address: str = "127.0.0.1:50051", model: str = "translation") -> None:
    """Prints each text with its translations from English to German."""
    with Conch(address, timeout_seconds=30) as conch:
        try:
            answers = [_translated(conch, model, num_beams) for num_beams in (1, 4)]
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for text, greedy, best in zip(TEXTS, *answers, strict=True):
        print(f"{text}\n  greedy: {_told(greedy)}\n  beams:  {_told(best)}")


def _translated(conch: Conch, model: str, num_beams: int) -> Sequence[inference_pb2.GeneratedText]:
    response = conch.translate(
        TEXTS,
        model=model,
        source_language="en",
        target_language="de",
        num_beams=num_beams,
        no_repeat_ngram_size=3,
    )
    return response.translations


def _told(found: inference_pb2.GeneratedText) -> str:
    is_cut = found.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    return f"{found.text}{' ...' if is_cut else ''}  ({found.score:.2f})"


if __name__ == "__main__":
    main(*sys.argv[1:])
