"""The rpcs Generate and Chat: a prompt or a conversation as an engine reads it, its pieces as responses.

Knows requests, windows and pieces; knows nothing about engines.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, NotReady, Violation
from services.tasks.encoding import Encoder
from services.tasks.rpcs import Piece, Prompt, Served, TextField
from services.tasks.text_generation import chat_template, sampling

MAX_MESSAGES = 1000


class Generate:
    """Continues a prompt."""

    def texts(self, request: inference_pb2.GenerateRequest) -> Sequence[TextField]:
        """The prompt."""
        return (TextField("prompt", [request.prompt], is_single=True),)

    def prompt(self, request: inference_pb2.GenerateRequest, served: Served) -> Prompt:
        """The prompt as it is."""
        parameters = sampling.parameters(request.sampling)
        return _fitted(request.prompt, "prompt", parameters, served.encoder)

    def respond(self, piece: Piece) -> inference_pb2.GenerateResponse:
        """A piece of the text."""
        return inference_pb2.GenerateResponse(piece=_text_piece(piece))


class Chat:
    """Answers a conversation."""

    def texts(self, request: inference_pb2.ChatRequest) -> Sequence[TextField]:
        """What was said."""
        contents = [message.content for message in request.messages]
        return (TextField("messages", contents, most=MAX_MESSAGES, part="content"),)

    def prompt(self, request: inference_pb2.ChatRequest, served: Served) -> Prompt:
        """The conversation as the model's template writes it, ready for the assistant's answer.

        Raises NotReady(NO_CHAT_TEMPLATE) if the model has none, InvalidRequest if it refuses the messages.
        """
        chat = chat_template.chat_of(served.facts)
        if not chat.template:
            raise NotReady("the model has no chat template: it answers Generate", reason="NO_CHAT_TEMPLATE")
        _check_roles(request.messages)
        parameters = sampling.parameters(request.sampling)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        try:
            text = chat.prompt(messages)
        except ValueError as error:
            raise InvalidRequest.field("messages", str(error), reason="CHAT_TEMPLATE_REFUSED") from error
        return _fitted(
            _begun_once(text, chat.bos_token, served.encoder), "messages", parameters, served.encoder
        )

    def respond(self, piece: Piece) -> inference_pb2.ChatResponse:
        """A piece of the answer."""
        return inference_pb2.ChatResponse(piece=_text_piece(piece))


def _check_roles(messages: Sequence[inference_pb2.ChatMessage]) -> None:
    known = chat_template.ROLES
    problems = [
        Violation(f"messages[{i}].role", f"{message.role[:80]!r} is none of {', '.join(known)}")
        for i, message in enumerate(messages)
        if message.role not in known
    ]
    if messages[-1].role == "assistant":
        problems.append(
            Violation(f"messages[{len(messages) - 1}].role", "the last message must not be the assistant's")
        )
    if problems:
        raise InvalidRequest(*problems, reason="BAD_ROLE")


def _begun_once(text: str, bos_token: str, encoder: Encoder) -> str:
    """Returns `text` without the token that begins it if the tokenizer sets that by itself."""
    sets_special_tokens = bool(bos_token) and encoder.count("") > 0
    return text.removeprefix(bos_token) if sets_special_tokens else text


def _fitted(text: str, field: str, parameters: Mapping[str, Any], encoder: Encoder) -> Prompt:
    """Returns the prompt with as many tokens to write as are asked for and as the window leaves.

    Raises InvalidRequest if it leaves none.
    """
    num_tokens, window = encoder.count(text), encoder.max_length
    if num_tokens >= window:
        raise InvalidRequest.field(
            field,
            f"is {num_tokens} tokens long; of the {window} of the model's window one is for the answer",
            reason="PROMPT_TOO_LONG",
        )
    most = min(parameters["max_tokens"], window - num_tokens)
    least = min(parameters.get("min_tokens", 0), most)
    fitted = {**parameters, "max_tokens": most} | ({"min_tokens": least} if least else {})
    return Prompt(text, fitted, {**sampling.FIELDS, "text_input": field})


def _text_piece(piece: Piece) -> inference_pb2.TextPiece:
    found = inference_pb2.TextPiece(
        text=piece.text, logprobs=piece.logprobs, finish_reason=piece.finish_reason
    )
    if piece.is_last:
        found.usage.num_prompt_tokens = piece.num_prompt_tokens
        found.usage.num_generated_tokens = piece.num_generated_tokens
    return found
