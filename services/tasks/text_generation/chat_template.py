"""Conversations to text by a model's chat template, in which parts are marked that the model is to write.

Knows Jinja as transformers' tokenizers use it, in a sandbox, because a template comes with its model from
anywhere; knows nothing about tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from services.tasks.example import Facts

ROLES = ("system", "user", "assistant")

Message = Mapping[str, str]
"""One turn: "role" and "content"."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a conversation's text; `is_written`: the model is to learn to write it."""

    text: str
    is_written: bool


@dataclass(frozen=True)
class Chat:
    """How a model reads conversations: its template and the tokens that the template names."""

    template: str
    bos_token: str = ""
    eos_token: str = ""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Returns what the model continues with the assistant's next turn. Raises ValueError."""
        return self._render(messages, add_generation_prompt=True)

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """Returns the whole conversation, what the assistant says being the model's to write.

        Raises ValueError where the template refuses it, or renders what went before in another way once
        the assistant has answered: what belongs to the answer is then unknown.
        """
        found: list[Segment] = []
        told = ""
        for i in (i for i, message in enumerate(messages) if message["role"] == "assistant"):
            before = self.prompt(messages[:i])
            whole = self._render(messages[: i + 1], add_generation_prompt=False)
            if not before.startswith(told) or not whole.startswith(before):
                raise ValueError(f"the chat template renders turn {i + 1} in another way as the talk goes on")
            found += [Segment(before[len(told) :], False), *self._answer(whole[len(before) :])]
            told = whole
        return found

    def _answer(self, text: str) -> list[Segment]:
        """Returns an answer as it ends with the token that ends it; line ends after that are not written."""
        if not self.eos_token or self.eos_token not in text:
            return [Segment(text + self.eos_token, True)] if self.eos_token else [Segment(text, True)]
        answer, eos, rest = text.rpartition(self.eos_token)
        return [Segment(answer + eos, True), Segment(rest, False)]

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        try:
            return compiled(self.template).render(
                messages=[dict(message) for message in messages],
                bos_token=self.bos_token,
                eos_token=self.eos_token,
                add_generation_prompt=add_generation_prompt,
            )
        except (TemplateError, TypeError, LookupError, ValueError, ArithmeticError) as error:
            raise ValueError(f"the chat template refuses this conversation: {error}") from error


def chat_of(facts: Facts) -> Chat:
    """Returns how a model of these facts reads conversations; its template is empty if it reads none."""
    own = facts.spec.text_generation
    return Chat(own.chat_template, own.bos_token, own.eos_token)


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """Returns a template with what transformers gives to templates. Raises jinja2.TemplateError."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": datetime.now().strftime}
    return environment.from_string(template)


class _Generation(Extension):
    """Lets the {% generation %} blocks of training templates through as they are."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[Node]:
        """Returns what stands in the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise TemplateError(message)
