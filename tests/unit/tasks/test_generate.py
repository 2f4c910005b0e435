"""The codecs of Generate and Chat: what an engine is asked, and what is refused by which name."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from conch.v1 import inference_pb2, tasks_pb2
from examples.assets import minilm
from services.errors import InvalidRequest, NotReady
from services.tasks import Facts
from services.tasks.encoding import Encoder
from services.tasks.rpcs import Piece, Prompt
from services.tasks.text_generation.generate import Chat, Generate

WINDOW = 32
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' and not loop.first %}"
    "{{ raise_exception('system speaks first') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SCHEMA = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'


@dataclass(frozen=True)
class Model:
    """What a codec needs to know of a served version."""

    encoder: Encoder
    facts: Facts


@pytest.fixture(scope="module")
def model() -> Model:
    return chatting(TEMPLATE)


def chatting(template: str, *, bos_token: str = "") -> Model:
    spec = tasks_pb2.TextGenerationSpec(chat_template=template, bos_token=bos_token)
    encoder = Encoder.from_file(minilm() / "tokenizer.json", WINDOW)
    return Model(encoder, Facts(spec=tasks_pb2.TaskSpec(text_generation=spec)))


def generated(model: Model, prompt: str = "once upon a time", **sampling: Any) -> Prompt:
    options = inference_pb2.SamplingOptions(**sampling)
    return Generate().prompt(inference_pb2.GenerateRequest(prompt=prompt, sampling=options), model)


def chatted(model: Model, *turns: tuple[str, str], **sampling: Any) -> Prompt:
    request = inference_pb2.ChatRequest(
        messages=[inference_pb2.ChatMessage(role=role, content=content) for role, content in turns],
        sampling=inference_pb2.SamplingOptions(**sampling),
    )
    return Chat().prompt(request, model)


def test_options_that_are_unset_are_left_to_the_engine(model: Model) -> None:
    prompt = generated(model, "a")
    assert prompt.text == "a"
    assert prompt.parameters == {"max_tokens": WINDOW - 3}  # [CLS] a [SEP]


def test_options_are_spelled_as_vllm_spells_them(model: Model) -> None:
    prompt = generated(
        model,
        temperature=0.7,
        top_k=40,
        top_p=0.9,
        min_p=0.05,
        repetition_penalty=1.1,
        seed=(1 << 63) + 5,
        stop=["\n", "END"],
        max_tokens=5,
        min_tokens=2,
        num_logprobs=0,
        json_schema=SCHEMA,
    )
    found = dict(prompt.parameters)
    assert json.loads(found.pop("structured_outputs")) == {"json": json.loads(SCHEMA)}
    assert found == {
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "seed": 5,
        "stop": ["\n", "END"],
        "max_tokens": 5,
        "min_tokens": 2,
        "logprobs": 0,
    }


def test_every_parameter_says_which_field_it_was_made_of(model: Model) -> None:
    prompt = generated(model, max_tokens=1, num_logprobs=1, json_schema=SCHEMA)
    assert set(prompt.parameters) <= set(prompt.fields)
    assert prompt.fields["structured_outputs"] == "sampling.json_schema"
    assert prompt.fields["logprobs"] == "sampling.num_logprobs"
    assert prompt.fields["text_input"] == "prompt"


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 100.5}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 1_000_001}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"min_p": 1.0}, "min_p"),
        ({"min_p": -0.5}, "min_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 10.5}, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
        ({"min_tokens": 257}, "min_tokens"),
        ({"num_logprobs": 21}, "num_logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": ["x", ""]}, "stop[1]"),
        ({"json_schema": "{"}, "json_schema"),
        ({"json_schema": "[]"}, "json_schema"),
        ({"json_schema": "{}"}, "json_schema"),
        ({"json_schema": '{"maximum": NaN}'}, "json_schema"),
        ({"json_schema": '{"type": "text"}'}, "json_schema"),
        ({"json_schema": '{"properties": []}'}, "json_schema"),
        ({"json_schema": json.dumps({"description": "x" * (64 << 10)})}, "json_schema"),
        ({"json_schema": '{"not": ' * 8000 + "{}" + "}" * 8000}, "json_schema"),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(
    model: Model, sampling: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generated(model, **sampling)
    assert [violation.field for violation in caught.value.violations] == [f"sampling.{field}"]
    assert caught.value.reason == "BAD_SAMPLING"


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"temperature": 100.0},
        {"top_k": 1_000_000},
        {"top_p": 1.0},
        {"repetition_penalty": 10.0},
        {"max_tokens": 1, "min_tokens": 1},
        {"min_tokens": 256},
        {"num_logprobs": 20},
        {"stop": ["x"] * 16},
        {"json_schema": SCHEMA},
    ],
)
def test_the_ends_of_each_range_are_allowed(model: Model, sampling: dict[str, Any]) -> None:
    assert generated(model, **sampling).parameters["max_tokens"] >= 1


def test_all_bad_options_are_named_at_once(model: Model) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generated(model, temperature=-1, top_p=2, max_tokens=0)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["sampling.temperature", "sampling.top_p", "sampling.max_tokens"]


def test_a_prompt_that_fills_the_window_is_refused_with_both_numbers(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="is 32 tokens long; of the 32") as caught:
        generated(model, "a " * 30)
    assert caught.value.violations[0].field == "prompt"
    assert caught.value.reason == "PROMPT_TOO_LONG"


def test_an_answer_may_be_as_long_as_the_window_leaves(model: Model) -> None:
    prompt = generated(model, "a " * 29, max_tokens=100, min_tokens=50)
    assert (prompt.parameters["max_tokens"], prompt.parameters["min_tokens"]) == (1, 1)


def test_an_answer_has_256_tokens_at_most_unless_the_caller_says_more() -> None:
    wide = Model(Encoder.from_file(minilm() / "tokenizer.json", 2048), Facts())
    assert generated(wide).parameters["max_tokens"] == 256
    assert generated(wide, max_tokens=1000).parameters["max_tokens"] == 1000


def test_a_conversation_is_written_by_the_models_template(model: Model) -> None:
    prompt = chatted(model, ("system", "be brief"), ("user", "hello"))
    assert prompt.text == "<system>be brief\n<user>hello\n<assistant>"
    assert prompt.fields["text_input"] == "messages"


def test_a_model_without_a_template_does_not_chat() -> None:
    with pytest.raises(NotReady) as caught:
        chatted(chatting(""), ("user", "hello"))
    assert caught.value.reason == "NO_CHAT_TEMPLATE"


def test_a_template_that_refuses_says_why_in_its_own_words(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="system speaks first") as caught:
        chatted(model, ("user", "hello"), ("system", "be brief"), ("user", "hello?"))
    assert caught.value.violations[0].field == "messages"
    assert caught.value.reason == "CHAT_TEMPLATE_REFUSED"


@pytest.mark.parametrize(
    "template", ["{{ messages[0].__class__.__mro__ }}", "{% for i in range(10 ** 9) %}x{% endfor %}"]
)
def test_a_template_is_held_in_a_sandbox(template: str) -> None:
    with pytest.raises(InvalidRequest):
        chatted(chatting(template), ("user", "hello"))


@pytest.mark.parametrize(
    ("turns", "field"),
    [
        ([("user", "a"), ("assistant", "b")], "messages[1].role"),
        ([("robot", "a")], "messages[0].role"),
        ([("", "a"), ("user", "b")], "messages[0].role"),
        ([("User", "a")], "messages[0].role"),
    ],
)
def test_a_role_out_of_place_is_refused_by_name(
    model: Model, turns: list[tuple[str, str]], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chatted(model, *turns)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert caught.value.reason == "BAD_ROLE"


def test_a_conversation_that_fills_the_window_is_refused(model: Model) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chatted(model, ("user", "a " * 40))
    assert (caught.value.violations[0].field, caught.value.reason) == ("messages", "PROMPT_TOO_LONG")


def test_the_token_that_begins_a_text_is_set_once() -> None:
    """MiniLM's tokenizer sets [CLS] by itself, as Llama's sets <s>."""
    model = chatting(TEMPLATE, bos_token="[CLS]")
    assert chatted(model, ("user", "a")).text == "<user>a\n<assistant>"


def test_chat_options_are_checked_as_those_of_generate(model: Model) -> None:
    with pytest.raises(InvalidRequest, match=r"sampling\.top_p"):
        chatted(model, ("user", "a"), top_p=7)


def test_texts_are_called_by_the_fields_that_hold_them() -> None:
    request = inference_pb2.ChatRequest(messages=[inference_pb2.ChatMessage(role="user", content="a")])
    (messages,) = Chat().texts(request)
    (prompt,) = Generate().texts(inference_pb2.GenerateRequest(prompt="a"))
    assert (messages.path(3), messages.most, list(messages.texts)) == ("messages[3].content", 1000, ["a"])
    assert (prompt.path(0), list(prompt.texts)) == ("prompt", ["a"])


@pytest.mark.parametrize("codec", [Generate(), Chat()])
def test_usage_stands_in_the_last_piece_alone(codec: Generate | Chat) -> None:
    first = codec.respond(Piece("a", num_prompt_tokens=3, num_generated_tokens=1)).piece
    last = codec.respond(
        Piece(
            "b",
            is_last=True,
            finish_reason=inference_pb2.FINISH_REASON_STOP,
            num_prompt_tokens=3,
            num_generated_tokens=2,
        )
    ).piece
    assert (first.text, first.HasField("usage"), first.finish_reason) == ("a", False, 0)
    assert (last.text, last.usage.num_prompt_tokens, last.usage.num_generated_tokens) == ("b", 3, 2)
    assert last.finish_reason == inference_pb2.FINISH_REASON_STOP
