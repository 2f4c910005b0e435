"""Which desk can help a customer: `python -m examples.customer_service_intents [ADDRESS] [MODEL]`.

Asks a classifier whose labels are intents. Given a model that knows entailment or similarity instead, the
desks themselves are the labels and nothing need be trained: pass --zero-shot. What the model is not sure of
goes to a person.
"""

import sys
from collections.abc import Sequence

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable
from conch.v1 import inference_pb2

MESSAGES = (
    "Where is my parcel? It should have been here on Monday.",
    "You charged my card twice for the same order.",
    "How do I change my password?",
    "hmm",
)
DESKS = ("delivery", "payment", "account")
SURE = 0.6


def main(address: str = "127.0.0.1:50051", model: str = "intents", *options: str) -> None:
    """Prints the desk of each message, or that a person is wanted."""
    labels = DESKS if "--zero-shot" in options else ()
    with Conch(address, timeout_seconds=10) as conch:
        try:
            answer = conch.classify(
                MESSAGES,
                model=model,
                candidate_labels=labels,
                hypothesis_template="This is about {}." if labels else "",
            )
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for message, result in zip(MESSAGES, answer.classifications, strict=True):
        print(f"{desk(result.labels)}  {message}")


def desk(labels: Sequence[inference_pb2.LabelScore]) -> str:
    """Returns the best label if the model is sure of it, else "person"."""
    best = labels[0]
    return f"{best.label} {best.score:.3f}" if best.score >= SURE else f"person ({best.label}?)"


if __name__ == "__main__":
    main(*sys.argv[1:])
