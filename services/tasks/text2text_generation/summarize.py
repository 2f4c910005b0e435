"""The rpc Summarize of text2text-generation.

Knows requests; knows nothing about how models are trained or run.
"""

from collections.abc import Sequence

from conch.v1 import inference_pb2
from services.errors import NotReady
from services.tasks.example import Encoded, Example
from services.tasks.rpcs import Served, TextField
from services.tasks.tensors import Answer
from services.tasks.text2text_generation.language_pairs import only_translates
from services.tasks.text2text_generation.search_options import parameters
from services.tasks.text2text_generation.sequences import generated_texts


class Summarize:
    """Texts as shorter texts."""

    def texts(self, request: inference_pb2.SummarizeRequest) -> Sequence[TextField]:
        """The texts to summarize."""
        return [TextField("texts", request.texts)]

    def examples(self, request: inference_pb2.SummarizeRequest, served: Served) -> list[Example]:
        """One a text, with the model's prefix. Raises NotReady if the model does nothing but translate."""
        own = served.facts.spec.text2text_generation
        if only_translates(own):
            raise NotReady(f"{request.model} translates, it does not summarize", reason="ONLY_TRANSLATES")
        asked = parameters(request.options, served.facts)
        return [
            Example(own.prefix + text, "", None, row, asked)
            for row, text in enumerate(request.texts, start=1)
        ]

    def respond(
        self,
        request: inference_pb2.SummarizeRequest,
        encoded: Sequence[Encoded],
        answers: Sequence[Answer],
        served: Served,
    ) -> inference_pb2.SummarizeResponse:
        """The summaries."""
        return inference_pb2.SummarizeResponse(summaries=generated_texts(encoded, answers, served))
