"""A customer service chat: `python -m examples.customer_service_chat [ADDRESS] [MODEL]`.

Each question is answered with all that was said before; the answer is shown as it is written.
"""

import sys

from conch.client import Conch
from conch.errors import ConchError, ResourceExhausted, Unavailable

HOUSE_RULES = (
    "You answer customers of a small bookshop in one or two friendly sentences. Books can be returned within "
    "30 days. Parcels take three working days."
)
QUESTIONS = ("How long does a parcel take?", "And can I send a book back that I do not like?")


def main(address: str = "127.0.0.1:50051", model: str = "assistant") -> None:
    """Prints a conversation of two questions, or what went wrong and whether to come back."""
    messages = [{"role": "system", "content": HOUSE_RULES}]
    with Conch(address, timeout_seconds=120) as conch:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            print(f"customer: {question}\nservice:  ", end="", flush=True)
            try:
                messages.append({"role": "assistant", "content": _answer(conch, model, messages)})
            except (ResourceExhausted, Unavailable) as error:
                sys.exit(f"\ntry again in {error.retry_after_seconds or 1:g} s: {error.message}")
            except ConchError as error:
                sys.exit(f"\n{error.code.name} {error.reason}: {error.message}")


def _answer(conch: Conch, model: str, messages: list[dict[str, str]]) -> str:
    """Returns the assistant's answer, printed as it came."""
    text = ""
    for answer in conch.chat(messages, model=model, max_tokens=60, temperature=0.2, seed=7):
        print(answer.piece.text, end="", flush=True)
        text += answer.piece.text
    print()
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])
