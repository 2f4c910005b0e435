"""The rpcs Generate and Chat: a prompt or a conversation as an engine reads it, its pieces as responses.

Knows requests and pieces; knows nothing about engines.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2
from services.tasks.rpcs import Piece, Prompt, Served, TextField


class Generate:
    """Continues a prompt."""

    def texts(self, request: inference_pb2.GenerateRequest) -> Sequence[TextField]:
        """The prompt."""
        return (TextField("prompt", [request.prompt], is_single=True),)

    def prompt(self, request: inference_pb2.GenerateRequest, served: Served) -> Prompt:
        """The prompt as it is."""
        return Prompt(request.prompt)

    def respond(self, piece: Piece) -> inference_pb2.GenerateResponse:
        """A piece of the text."""
        return inference_pb2.GenerateResponse(piece=_text_piece(piece))


class Chat:
    """Answers a conversation."""

    def texts(self, request: inference_pb2.ChatRequest) -> Sequence[TextField]:
        """What was said."""
        return (TextField("messages.content", [message.content for message in request.messages]),)

    def prompt(self, request: inference_pb2.ChatRequest, served: Served) -> Prompt:
        """The conversation by the model's template."""
        # Imported late: the task names this module's rpcs.
        from services.tasks.text_generation import chat_of

        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        return Prompt(chat_of(served.facts).prompt(messages))

    def respond(self, piece: Piece) -> inference_pb2.ChatResponse:
        """A piece of the answer."""
        return inference_pb2.ChatResponse(piece=_text_piece(piece))


def _text_piece(piece: Piece) -> inference_pb2.TextPiece:
    found = inference_pb2.TextPiece(
        text=piece.text, logprobs=piece.logprobs, finish_reason=piece.finish_reason
    )
    if piece.is_last:
        found.usage.num_prompt_tokens = piece.num_prompt_tokens
        found.usage.num_generated_tokens = piece.num_generated_tokens
    return found
