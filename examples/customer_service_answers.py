"""Answers questions from a policy: `python -m examples.customer_service_answers [ADDRESS] [MODEL]`.

Each answer is a span of the policy, so that a clerk can be shown the sentence that it stands in. What the
policy does not say goes to a person: the threshold decides how sure the model must be that it is not there.
"""

import sys

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable
from conch.v1 import inference_pb2

POLICY = (
    "Orders can be returned within 30 days of delivery. Refunds are paid within 5 days to the card that was "
    "charged. Northwind Parcel collects returns on Monday and on Thursday. Returns of furniture cost 25 "
    "euros. Repairs are done by Contoso Works in Rotterdam. Anna Jansen decides about complaints. Gift cards "
    "cannot be returned."
)

QUESTIONS = (
    "How many days of delivery?",
    "Who decides about complaints?",
    "Which organisation collects returns on Monday?",
    "How many euros?",
    "Who founded the company?",
)
NO_ANSWER_THRESHOLD = 0.3


def main(address: str = "127.0.0.1:50051", model: str = "answers") -> None:
    """Prints an answer and its sentence for each question, or that a person is wanted."""
    with Conch(address, timeout_seconds=10) as conch:
        try:
            response = conch.answer_questions(
                QUESTIONS, [POLICY], model=model, no_answer_threshold=NO_ANSWER_THRESHOLD
            )
        except (ResourceExhausted, Unavailable) as error:
            sys.exit(f"try again in {error.retry_after_seconds or 1:g} s: {error.message}")
        except ConchError as error:
            sys.exit(f"{error.code.name} {error.reason}: {error.message}")
    for question, result in zip(QUESTIONS, response.results, strict=True):
        print(f"{question}\n  {_told(result)}")


def _told(result: inference_pb2.QuestionAnswers) -> str:
    if not result.answers:
        return f"a person will answer that ({result.no_answer_score:.3f} that the policy does not say)"
    best = result.answers[0]
    return f"{best.text}  {best.score:.3f}  ...{_sentence(best.start, best.end)}"


def _sentence(start: int, end: int) -> str:
    """Returns the sentence of the policy around an answer; offsets are those of a Python str."""
    first = POLICY.rfind(". ", 0, start) + 2 if ". " in POLICY[:start] else 0
    last = POLICY.find(".", end)
    return POLICY[first : last + 1]


if __name__ == "__main__":
    main(*sys.argv[1:])
