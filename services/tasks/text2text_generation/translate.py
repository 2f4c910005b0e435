"""The rpc Translate of text2text-generation.

Knows requests and language pairs; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2, tasks_pb2
from services.errors import InvalidRequest, NotReady
from services.tasks.example import Encoded, Example
from services.tasks.rpcs import Served, TextField
from services.tasks.tensors import Answer
from services.tasks.text2text_generation.language_pairs import UnknownPairError, choose, prefix_of
from services.tasks.text2text_generation.search_options import parameters
from services.tasks.text2text_generation.sequences import generated_texts


class Translate:
    """Texts in one language as texts in another."""

    def texts(self, request: inference_pb2.TranslateRequest) -> Sequence[TextField]:
        """The texts to translate."""
        return [TextField("texts", request.texts)]

    def examples(self, request: inference_pb2.TranslateRequest, served: Served) -> list[Example]:
        """One a text, with the prefix of its pair. Raises NotReady if the model does not translate."""
        pair = _pair(request, served)
        prefix = prefix_of(pair, served.facts.spec.text2text_generation)
        asked = parameters(request.options, served.facts)
        return [
            Example(prefix + text, "", None, row, asked) for row, text in enumerate(request.texts, start=1)
        ]

    def respond(
        self,
        request: inference_pb2.TranslateRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.TranslateResponse:
        """The translations."""
        return inference_pb2.TranslateResponse(translations=generated_texts(encoded, answers, served))


def _pair(request: inference_pb2.TranslateRequest, served: Served) -> tasks_pb2.LanguagePair:
    pairs = served.facts.spec.text2text_generation.language_pairs
    if not pairs:
        message = f"{request.model} names no language pairs: it does not translate"
        raise NotReady(message, reason="NO_LANGUAGE_PAIRS")
    try:
        return choose(pairs, request.source_language, request.target_language)
    except UnknownPairError as error:
        raise InvalidRequest.field("target_language", str(error), reason="UNKNOWN_LANGUAGE_PAIR") from error
