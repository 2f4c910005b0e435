"""Text generation in the real Triton: tiny random models, many callers, bad ones among them."""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.converter import ir_export
from services.errors import NotReady
from tests.integration.generation_models import (
    WINDOW,
    Stream,
    add,
    checkpoint,
    config,
    generate,
    reference,
    under_way,
)
from tests.integration.triton import RunningTriton, free_port, started, tensors

PROMPT = "The quick brown fox"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
    "required": ["mood", "sure"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Served:
    """A Triton with metrics, and the checkpoints and exports of what it serves."""

    triton: RunningTriton
    metrics_port: int
    folders: dict[str, Path]

    def gauge(self, name: str, model: str = "llama") -> float:
        """Returns a metric of the engine."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            found = re.search(
                rf'^conch_generation_{name}\{{model="{model}".*\}} (\S+)$', page.read().decode(), re.M
            )
        assert found, name
        return float(found[1])

    def wait_for_gauge(self, name: str, value: float, model: str = "llama") -> None:
        """Returns once a metric is `value`."""
        wait_until(lambda: self.gauge(name, model) == value)


def wait_until(condition: Callable[[], bool], timeout_seconds: float = 20) -> None:
    """Returns once `condition` holds; fails if it does not within the time."""
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Models llama and gpt2, and llama again with two places and with a cache of 8 blocks."""
    home, port = tmp_path_factory.mktemp("generation"), free_port()
    folders = {}
    for kind in ("llama", "gpt2"):
        folders[kind] = checkpoint(kind, home / kind)
        folders[f"{kind}-ir"] = ir_export.export(folders[kind], home / f"{kind}-ir")
    with started(home / "triton", variables={"CONCH_TRITON_METRICS_PORT": str(port)}) as triton:
        for kind in ("llama", "gpt2"):
            add(triton, kind, folders[f"{kind}-ir"], config())
        add(triton, "narrow", folders["llama-ir"], config(max_num_seqs=2))
        # A block of 32 tokens takes 16 KiB: 2 layers, keys and values, 2 heads of 16 float32.
        add(triton, "small", folders["llama-ir"], config(cache_size=8.5 * 16 / 2**20))
        yield Served(triton, port, folders)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_generates_what_transformers_generates(served: Served, kind: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(served.folders[kind])
    expected = reference(served.folders[kind], PROMPT, max_new_tokens=48)
    answer = generate(served.triton, kind, PROMPT, temperature=0, max_tokens=48)
    assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert answer.finish_reason == "length"
    assert answer.num_tokens == 48
    assert answer.extras[0]["num_input_tokens"] == len(tokenizer(PROMPT)["input_ids"])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_repetition_penalty_is_that_of_transformers(served: Served, kind: str) -> None:
    expected = reference(served.folders[kind], PROMPT, max_new_tokens=24, repetition_penalty=1.8)
    answer = generate(
        served.triton, kind, PROMPT, temperature=0, max_tokens=24, repetition_penalty=1.8, logprobs=0
    )
    assert [int(next(iter(token))) for token in answer.logprobs] == expected


def test_logprobs_are_those_of_the_model(served: Served) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = served.folders["llama"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(PROMPT)["input_ids"]
    answer = generate(served.triton, "llama", PROMPT, seed=5, max_tokens=6, logprobs=3)
    chosen = [int(next(iter(token))) for token in answer.logprobs]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([prompt + chosen])).logits[0]
    expected = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    for row, token, token_id in zip(expected, answer.logprobs, chosen, strict=True):
        assert {int(t) for t in token} == {token_id, *row.topk(3).indices.tolist()}
        for t, said in token.items():
            assert said["logprob"] == pytest.approx(float(row[int(t)]), abs=1e-3)
            assert said["rank"] == 1 + int((row > row[int(t)]).sum())
            assert said["decoded_token"] == tokenizer.decode([int(t)])
    total = sum(float(row[t]) for row, t in zip(expected, chosen, strict=True))
    assert answer.extras[-1]["cumulative_logprob"] == pytest.approx(total, abs=1e-2)


def test_the_same_seed_writes_the_same_text_alone_and_beside_others(served: Served) -> None:
    asked: dict[str, Any] = {"seed": 42, "max_tokens": 60, "temperature": 0.9, "top_p": 0.95}
    alone = generate(served.triton, "llama", PROMPT, **asked).text
    with under_way(served.triton, "llama", 4):
        beside = generate(served.triton, "llama", PROMPT, **asked).text
    other = generate(served.triton, "llama", PROMPT, **asked | {"seed": 43}).text
    assert beside == alone
    assert other != alone


def test_without_a_seed_texts_differ(served: Served) -> None:
    texts = {generate(served.triton, "llama", PROMPT, max_tokens=20).text for _ in range(3)}
    assert len(texts) == 3


def test_pieces_of_a_stream_are_whole_characters(served: Served) -> None:
    """A constraint lets the random model write characters of two to four bytes, token by token."""
    sampling = {"structured_outputs": {"regex": "[äöüß貝🐚𝄞é]{40}"}, "max_tokens": 400, "seed": 1}
    answer = generate(served.triton, "llama", PROMPT, **sampling)
    assert re.fullmatch("[äöüß貝🐚𝄞é]{40}", answer.text)
    assert len(answer.pieces) > 20
    assert answer.num_tokens > len(answer.pieces)


def test_a_stop_string_ends_the_text_before_it(served: Served) -> None:
    whole = generate(served.triton, "llama", PROMPT, temperature=0, max_tokens=30).text
    stop = whole[40:47]
    answer = generate(served.triton, "llama", PROMPT, temperature=0, max_tokens=30, stop=[stop, "never so"])
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    kept = generate(
        served.triton,
        "llama",
        PROMPT,
        temperature=0,
        max_tokens=30,
        stop=stop,
        include_stop_str_in_output=True,
    )
    assert kept.text == whole[: whole.index(stop)] + stop


def test_a_stop_token_ends_the_text_but_not_before_min_tokens(served: Served) -> None:
    expected = reference(served.folders["llama"], PROMPT, max_new_tokens=10)
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 10, "stop_token_ids": [expected[4]]}
    answer = generate(served.triton, "llama", PROMPT, **asked)
    assert (answer.finish_reason, answer.num_tokens) == ("stop", expected.index(expected[4]) + 1)
    longer = generate(served.triton, "llama", PROMPT, **asked, min_tokens=8)
    assert longer.num_tokens >= 8


def test_without_streaming_one_answer_holds_everything(served: Served) -> None:
    streamed = generate(served.triton, "llama", PROMPT, temperature=0, max_tokens=20)
    whole = generate(served.triton, "llama", PROMPT, temperature=0, max_tokens=20, stream=False)
    assert whole.pieces == [streamed.text]
    assert (whole.finish_reason, whole.num_tokens) == ("length", 20)
    assert len(streamed.pieces) > 5
    assert all(extra["finish_reason"] == b"None" for extra in streamed.extras[:-1])


def test_a_json_schema_is_kept(served: Served) -> None:
    sampling = {"structured_outputs": {"json": SCHEMA}, "max_tokens": 100}
    answers = [generate(served.triton, "llama", PROMPT, **sampling, seed=seed) for seed in range(6)]
    values = [json.loads(answer.text) for answer in answers]
    assert all(value["mood"] in ("good", "bad") and isinstance(value["sure"], bool) for value in values)
    assert {answer.finish_reason for answer in answers} == {"stop"}
    spelled = generate(
        served.triton, "llama", PROMPT, guided_decoding={"json": json.dumps(SCHEMA)}, max_tokens=100
    )
    assert json.loads(spelled.text).keys() == {"mood", "sure"}


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        (
            {"structured_outputs": {"json": {"type": "nonsense"}}},
            "structured_outputs: Invalid type: nonsense",
        ),
        ({"structured_outputs": {"regex": "(["}}, "structured_outputs: "),
        ({"structured_outputs": {}}, "structured_outputs: must be an object with one of json, regex"),
        ({"temperature": -1}, "temperature: must be from 0, not -1"),
        ({"top_p": 0}, "top_p: must be above 0 to 1, not 0"),
        ({"max_tokens": 0}, "max_tokens: must be a whole number"),
        ({"stop": [""]}, "stop: must be a string or a list of strings"),
        ({"stop_token_ids": [10**6]}, "stop_token_ids: 1000000 is no token of this model"),
        ({"n": 2}, "n: must be 1"),
        ({"beams": 2}, "beams: is not a sampling parameter"),
    ],
)
def test_bad_parameters_fail_alone_while_others_go_on(
    served: Served, sampling: dict[str, Any], complaint: str
) -> None:
    with under_way(served.triton, "llama", 1) as others:
        answer = generate(served.triton, "llama", PROMPT, **sampling)
        assert str(answer.error).startswith(complaint)
        others[0].next()
    assert others[0].answer.error is None


def test_a_prompt_longer_than_the_window_is_refused(served: Served) -> None:
    answer = generate(served.triton, "llama", "fox " * WINDOW)
    assert f"must have fewer than {WINDOW}" in str(answer.error)
    assert "text_input: must not be empty" in str(generate(served.triton, "llama", "").error)


def test_a_text_ends_where_the_window_does(served: Served) -> None:
    """The small cache is a window of 256 tokens."""
    answer = generate(served.triton, "small", PROMPT, temperature=0, max_tokens=4000)
    assert answer.finish_reason == "length"
    assert answer.extras[0]["num_input_tokens"] + answer.num_tokens == 256


def test_a_full_cache_lets_the_latest_wait_and_changes_no_text(served: Served) -> None:
    def ask(seed: int) -> str:
        return generate(served.triton, "small", f"{PROMPT} {seed}", seed=seed, max_tokens=120).text

    alone = [ask(seed) for seed in range(5)]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(ask, range(5)))
    assert together == alone
    served.wait_for_gauge("cache_blocks_used", 0, "small")


def test_a_late_joiner_has_its_first_token_before_the_others_end(served: Served) -> None:
    with under_way(served.triton, "llama", 3) as others:
        start = time.monotonic()
        joiner = Stream(served.triton, "llama", PROMPT, max_tokens=5)
        joiner.next()
        waited = time.monotonic() - start
        for other in others:
            other.next()
        assert not any(other.done for other in others)
        joiner.rest()
    assert waited < 1


def test_who_finds_no_place_waits_in_order(served: Served) -> None:
    order: list[int] = []
    with under_way(served.triton, "narrow", 2) as first:
        waiting = []
        for i in range(3):
            waiting.append(Stream(served.triton, "narrow", PROMPT, seed=i, max_tokens=2000))
            served.wait_for_gauge("rows_waiting", i + 1, "narrow")
        for i, stream in enumerate(first):
            stream.close()
            waiting[i].next()
            order.append(i)
            wait_until(lambda i=i: served.gauge("rows_waiting", "narrow") == 2 - i)
        assert waiting[2].answer.pieces == []
        for stream in waiting:
            stream.close()
    served.wait_for_gauge("rows_waiting", 0, "narrow")


def test_who_gives_up_frees_row_and_blocks(served: Served) -> None:
    with under_way(served.triton, "llama", 3) as streams:
        served.wait_for_gauge("rows_running", 3)
        assert served.gauge("cache_blocks_used") >= 3
        streams[1].close()
        served.wait_for_gauge("rows_running", 2)
        for stream in (streams[0], streams[2]):
            stream.next()
            assert stream.answer.error is None
    served.wait_for_gauge("rows_running", 0)
    assert served.gauge("cache_blocks_used") == 0


def test_200_aborted_streams_leave_no_row(served: Served) -> None:
    def abort(i: int) -> None:
        stream = Stream(served.triton, "llama", f"{PROMPT} {i}", seed=i, max_tokens=3000)
        if i % 3:
            stream.next()
        stream.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(abort, range(200)))
    served.wait_for_gauge("rows_running", 0)
    served.wait_for_gauge("rows_waiting", 0)
    assert served.gauge("cache_blocks_used") == 0
    assert generate(served.triton, "llama", PROMPT, max_tokens=3).num_tokens == 3


def test_the_tensors_are_those_of_tritons_vllm_backend(served: Served) -> None:
    settled = served.triton.client.get_model_config("llama", as_json=True)["config"]
    assert settled["model_transaction_policy"] == {"decoupled": True}
    inputs = {entry["name"]: entry for entry in settled["input"]}
    required = [name for name, entry in inputs.items() if not entry.get("optional")]
    assert required == ["text_input"]
    assert {entry["name"]: entry["data_type"] for entry in settled["output"]} == {
        "text_output": "TYPE_STRING",
        "finish_reason": "TYPE_STRING",
        "cumulative_logprob": "TYPE_FP32",
        "logprobs": "TYPE_STRING",
        "num_input_tokens": "TYPE_UINT32",
        "num_output_tokens": "TYPE_UINT32",
    }
    assert inputs.keys() == {
        *("text_input", "stream", "sampling_parameters", "exclude_input_in_output"),
        *(f"return_{name}" for name in ("finish_reason", "cumulative_logprob", "logprobs")),
        *("return_num_input_tokens", "return_num_output_tokens"),
    }


def test_the_prompt_alone_is_enough_and_comes_back_with_the_answer(served: Served) -> None:
    import queue

    responses: queue.Queue[Any] = queue.Queue()
    client = served.triton.client
    client.start_stream(lambda result, error: responses.put((result, error)))
    client.async_stream_infer("llama", tensors({"text_input": np.array([PROMPT], np.object_)}))
    result, error = responses.get(timeout=20)
    client.stop_stream()
    assert error is None
    assert result.as_numpy("text_output")[0].decode().startswith(PROMPT)
    assert result.as_numpy("finish_reason") is None


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"precision": "f64"}, "precision must be f32 or bf16, not 'f64'"),
        ({"cache_size": "much"}, "cache_size must be a number of GB, not 'much'"),
        ({"cache_size": "0.000001"}, "cache_size must hold a block, 16384 bytes"),
    ],
)
def test_a_wrong_model_parameter_is_refused_at_load(
    served: Served, parameters: dict[str, str], complaint: str
) -> None:
    text = config() + "".join(
        f'\nparameters {{ key: "{k}" value: {{ string_value: "{v}" }} }}' for k, v in parameters.items()
    )
    for name in parameters:
        text = re.sub(rf'(parameters {{ key: "{name}".*\n)(?=[\s\S]*"{name}")', "", text)
    with pytest.raises(Exception, match=complaint):
        add(served.triton, "wrong", served.folders["llama-ir"], text)


def test_a_model_that_is_unloaded_lets_its_texts_end_and_goes_without_a_fault(served: Served) -> None:
    add(served.triton, "going", served.folders["llama-ir"], config())
    stream = Stream(served.triton, "going", PROMPT, temperature=0, max_tokens=300)
    stream.next()
    served.triton.client.unload_model("going")
    assert stream.rest().num_tokens == 300
    wait_until(lambda: "successfully unloaded 'going'" in served.triton.log.read_text(), 60)
    assert "Error" not in served.triton.log.read_text().split("'going'")[-2]


def test_bf16_and_int8_weights_generate_too(served: Served, tmp_path: Path) -> None:
    ir = ir_export.export(served.folders["llama"], tmp_path / "int8", precision="int8")
    add(served.triton, "int8", ir, config(precision="bf16", num_threads="1"))
    assert generate(served.triton, "int8", PROMPT, max_tokens=5).num_tokens == 5


def test_the_export_says_what_a_checkpoint_lacks_and_why_it_failed(served: Served, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"lacks config\.json, tokenizer\.json"):
        ir_export.export(tmp_path, tmp_path / "nothing")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_bytes((served.folders["llama"] / "tokenizer.json").read_bytes())
    (broken / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(NotReady, match=r"cannot export to OpenVINO's IR: .+"):
        ir_export.export(broken, tmp_path / "target")
