"""Golden texts: held-out prompts with what the trained model writes after them, greedily.

Knows how prompts are made of examples; knows nothing about how a version proves itself by them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from conch.v1 import models_pb2
from services.tasks import Example, Facts
from services.tasks.encoding import Encoder
from services.tasks.next_tokens import NUM_WRITTEN
from services.tasks.text_generation.chat_template import Chat, chat_of
from services.token_scores import ends_of, write_greedily

NUM_GOLDEN = 16
_PROMPT_TOKENS = 48


def golden_texts(
    examples: Iterable[Example], model: Any, encoder: Encoder, facts: Facts
) -> models_pb2.GoldenExamples:
    """Returns the first 16 prompts that can be made of examples, each with up to 32 tokens of the model's."""
    chat = chat_of(facts)
    [eos] = encoder.ids(chat.eos_token, add_special_tokens=False)
    ends, found = ends_of(model, eos), models_pb2.GoldenExamples()
    for prompt in _prompts(examples, encoder, chat):
        ids = encoder.ids(prompt, add_special_tokens=True)
        written = write_greedily(model, ids, most=NUM_WRITTEN, ends=ends)
        found.examples.add(text=prompt, generated=encoder.decode(written))
        if len(found.examples) == NUM_GOLDEN:
            break
    return found


def _prompts(examples: Iterable[Example], encoder: Encoder, chat: Chat) -> Iterator[str]:
    """Yields prompts that differ and leave room for an answer.

    Conversations are whole or left out: a part of one is none.
    """
    seen = set()
    for example in examples:
        is_conversation = isinstance(example.target, list)
        prompt = chat.prompt(example.target[:-1]) if is_conversation else _beginning(example, encoder)
        room = encoder.max_length - encoder.count(prompt)
        if prompt not in seen and room >= (NUM_WRITTEN if is_conversation else 1):
            seen.add(prompt)
            yield prompt


def _beginning(example: Example, encoder: Encoder) -> str:
    """Returns a prompt as it is, or half of a document; its first words if it is long."""
    words = re.findall(r"\S+\s*", example.text)
    if not example.text_pair:
        words = words[: -(-len(words) // 2)]
    most = min(_PROMPT_TOKENS, encoder.max_length // 2)
    words = words[:most]
    while len(words) > 1 and encoder.count("".join(words).rstrip()) > most:
        words.pop()
    return "".join(words).rstrip()
