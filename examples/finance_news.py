"""Who and what the headlines are about: `python -m examples.finance_news [ADDRESS] [MODEL]`.

Counts the mentions of each company, person and place over many headlines, as a desk that watches names
would. Several headlines go in one call: the gateway batches them.
"""

import sys
from collections import Counter
from collections.abc import Iterable

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable
from conch.v1 import inference_pb2

HEADLINES = (
    "Volkswagen and Siemens lead Frankfurt shares higher",
    "Bank of Japan holds rates as yen slips in Tokyo",
    "Volkswagen to cut jobs in Germany, says chief Peter Müller",
    "Wall Street ends lower; Microsoft and Intel weigh",
    "Microsoft in talks with Deutsche Telekom, sources say",
    "Oil rises after Iraq talks stall in New York",
)
MIN_SCORE = 0.5


def main(address: str = "127.0.0.1:50051", model: str = "news") -> None:
    """Prints each headline's entities, then the names by how often they were mentioned."""
    with Conch(address, timeout_seconds=10) as conch:
        try:
            # FIRST: a name that the tokenizer cuts in pieces never comes back in pieces.
            response = conch.extract_entities(
                HEADLINES, model=model, aggregation="first", min_score=MIN_SCORE
            )
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for headline, result in zip(HEADLINES, response.results, strict=True):
        print(f"{headline}\n  {_told(result)}")
    for (label, name), count in mentions(response.results).most_common():
        print(f"{count}  {label:4}  {name}")


def mentions(results: Iterable[inference_pb2.Entities]) -> Counter[tuple[str, str]]:
    """Returns how often each name of each type is mentioned."""
    return Counter((entity.label, entity.text) for result in results for entity in result.entities)


def _told(result: inference_pb2.Entities) -> str:
    found = (f"{e.label} {e.text} [{e.start}, {e.end}) {e.score:.3f}" for e in result.entities)
    return "; ".join(found) or "nobody in particular"


if __name__ == "__main__":
    main(*sys.argv[1:])
