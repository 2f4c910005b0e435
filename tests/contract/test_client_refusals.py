"""The fake gateway refuses what the real one refuses: same field, same reason, by the same requests."""

from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format

from conch._fake.checks import refuse_invalid
from conch.errors import InvalidArgument
from conch.v1 import inference_pb2, tasks_pb2
from services.errors import InvalidRequest
from services.gateway import limits
from services.gateway.settings import GatewaySettings
from services.tasks import TASKS, Facts

BAD = {
    "Classify": [
        "",
        'texts: " "',
        'texts: "a" text_pairs: "b" text_pairs: "c"',
        'texts: "a" candidate_labels: "x" candidate_labels: "x"',
        'texts: "a" candidate_labels: ""',
        'texts: "a" candidate_labels: "x" text_pairs: "b"',
        'texts: "a" candidate_labels: "x" hypothesis_template: "y"',
    ],
    "ExtractEntities": ['texts: "a" min_score: 2', 'texts: "a" min_score: nan', 'texts: "a" texts: ""'],
    "AnswerQuestion": [
        'questions: "a"',
        'contexts: "a"',
        'questions: "a" contexts: "b" contexts: "c"',
        'questions: "a" contexts: "b" top_k: 101',
        'questions: "a" contexts: "b" max_answer_tokens: 513',
        'questions: "a" contexts: "b" no_answer_threshold: 1.5',
    ],
    "Embed": ["", 'texts: ""'],
    "Rank": ['candidates: "a"', 'query: "a"', 'query: "a" candidates: " "'],
    "Translate": [
        "",
        'texts: "a" options { num_beams: 17 }',
        'texts: "a" options { max_new_tokens: 4097 }',
        'texts: "a" options { max_new_tokens: 3 min_new_tokens: 4 }',
        'texts: "a" options { length_penalty: 11 }',
        'texts: "a" options { no_repeat_ngram_size: 33 }',
    ],
    "Summarize": ['texts: "a" options { length_penalty: nan }'],
    "Generate": [
        "",
        'prompt: "a" sampling { temperature: -1 }',
        'prompt: "a" sampling { top_k: 1000001 }',
        'prompt: "a" sampling { top_p: 0 }',
        'prompt: "a" sampling { min_p: 1 }',
        'prompt: "a" sampling { repetition_penalty: 0 }',
        'prompt: "a" sampling { max_tokens: 0 min_tokens: 3 }',
        'prompt: "a" sampling { min_tokens: 257 }',
        'prompt: "a" sampling { num_logprobs: 21 }',
        'prompt: "a" sampling { stop: "x" stop: "" }',
        'prompt: "a" sampling { json_schema: "[]" }',
        'prompt: "a" sampling { json_schema: "{}" }',
    ],
    "Chat": [
        "",
        'messages { role: "user" }',
        'messages { role: "me" content: "a" }',
        'messages { role: "user" content: "a" } messages { role: "assistant" content: "b" }',
    ],
}
SPECS = {
    "Translate": 'text2text_generation { language_pairs { source: "en" target: "de" } max_target_length: 9 }',
    "Summarize": "text2text_generation { max_target_length: 128 }",
    "Chat": 'text_generation { chat_template: "{{ messages }}" }',
}
CASES = [(rpc, text) for rpc, texts in BAD.items() for text in texts]


@pytest.mark.parametrize(("rpc", "text"), CASES, ids=[f"{rpc}: {text}" for rpc, text in CASES])
def test_the_fake_and_the_real_gateway_refuse_alike(rpc: str, text: str) -> None:
    request = text_format.Parse(f'model: "m" {text}', getattr(inference_pb2, f"{rpc}Request")())
    with pytest.raises(InvalidRequest) as real:
        _check(rpc, request)
    with pytest.raises(InvalidArgument) as fake:
        refuse_invalid(rpc, request)
    assert fake.value.reason == real.value.reason
    assert fake.value.field_violations[0].field == real.value.violations[0].field


def _check(rpc: str, request: Any) -> None:
    """Raises what the gateway raises for the request, as far as that does not depend on a model."""
    implementation = next(task.rpcs[rpc] for task in TASKS.values() if rpc in task.rpcs)
    limits.check_texts(implementation.texts(request), GatewaySettings())
    spec = text_format.Parse(SPECS.get(rpc, ""), tasks_pb2.TaskSpec())
    served = SimpleNamespace(facts=Facts(("entailment", "neutral"), spec), encoder=None)
    for name in ("examples", "prompt"):
        if hasattr(implementation, name):
            getattr(implementation, name)(request, served)
