"""The verbs that ask a model for an answer at once, against a fake gateway."""

import io
from pathlib import Path
from typing import Any

import pytest

from conch.errors import ResourceExhausted
from conch.v1 import inference_pb2
from tests.contract.cli.conftest import Conch
from tests.contract.cli.fakes import FakeServices

TEXT = "Ada Lovelace met Babbage in London."


def asked(services: FakeServices) -> list[Any]:
    return [call.request for call in services.gateway.calls]


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_classify_prints_labels_for_people_and_the_message_for_programs(
    conch: Conch, services: FakeServices
) -> None:
    services.gateway.answer("dull", {"negative": 0.75, "positive": 0.25})
    assert "negative" in conch("classify", "dull", "--model", "sentiment").stdout
    (answer,) = conch("classify", "great", "dull", "-m", "sentiment", "--json").lines
    assert answer["classifications"][1]["labels"][0] == {"label": "negative", "score": 0.75}


def test_classify_takes_labels_of_the_callers_own(conch: Conch, services: FakeServices) -> None:
    zero_shot = ("-c", "sport", "--candidate-label", "war", "--hypothesis", "About {}.", "--multi-label")
    ran = conch("classify", "They won 3:0.", "-m", "nli", *zero_shot)
    assert "sport" in ran.stdout
    (request,) = asked(services)
    assert list(request.candidate_labels) == ["sport", "war"]
    assert (request.hypothesis_template, request.multi_label) == ("About {}.", True)


def test_classify_shows_a_regression_models_values(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer("so so", 3.5)
    lines = conch("classify", "so so", "-m", "stars").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [["value", "text"], ["3.500", "so", "so"]]


def test_the_only_routed_model_is_asked(conch: Conch, services: FakeServices) -> None:
    ran = conch("classify", "great")
    assert (ran.code, ran.stderr) == (2, "conch: --model is needed: none is routed\n")
    conch("route", "sentiment", "3")
    assert conch("classify", "great").code == 0
    assert asked(services)[-1].model == "sentiment"


def test_of_several_routed_models_the_only_one_of_the_verbs_task_is_asked(
    conch: Conch, services: FakeServices
) -> None:
    services.tasks["another"] = "a task of next year"
    conch("route", "sentiment", "3")
    conch("route", "another", "3")
    assert conch("classify", "great").code == 0
    assert asked(services)[-1].model == "sentiment"
    services.tasks["topics"] = "text-classification"
    conch("route", "topics", "3")
    ran = conch("classify", "great")
    assert (ran.code, ran.stderr) == (2, "conch: --model is needed: sentiment, topics\n")


@pytest.mark.parametrize("verb", ["classify", "extract", "embed", "translate", "summarize"])
def test_lines_of_a_file_go_out_in_batches(
    conch: Conch, services: FakeServices, tmp_path: Path, verb: str
) -> None:
    texts = [f"text {i}" for i in range(70)]
    (tmp_path / "texts").write_text("\n".join(texts), encoding="utf-8")
    ran = conch(verb, "-m", "m", "--file", str(tmp_path / "texts"), "--json")
    assert ran.code == 0, ran.stderr
    assert len(ran.lines) == len(asked(services)) > 1
    assert [text for request in asked(services) for text in request.texts] == texts


@pytest.mark.parametrize("verb", ["classify", "extract", "embed", "translate", "summarize"])
def test_texts_come_from_stdin_too(
    conch: Conch, services: FakeServices, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    typed(monkeypatch, "schön\n")
    assert conch(verb, "-m", "m").code == 0
    assert list(asked(services)[0].texts) == ["schön"]


def test_an_empty_line_is_named(conch: Conch, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("a\n\nb\n", encoding="utf-8")
    ran = conch("classify", "-m", "sentiment", "--file", str(tmp_path / "texts"))
    assert (ran.code, ran.stderr) == (2, "conch: line 2 is empty: every line is one text\n")


def test_bytes_that_are_no_utf8_are_refused_readably(conch: Conch, tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(b"\xff\xfe")
    ran = conch("classify", "-m", "sentiment", "--file", str(tmp_path / "texts"))
    assert ran.code == 2
    assert ran.stderr.startswith("conch: cannot read")


def test_a_bad_field_is_named_on_one_line(conch: Conch) -> None:
    ran = conch("classify", "", "-m", "sentiment")
    message = "texts[0]: is empty or only white space (EMPTY_TEXT)"
    assert (ran.code, ran.stdout, ran.stderr) == (2, "", f"conch: {message}\n")


def test_overload_says_when_to_come_back(conch: Conch, services: FakeServices) -> None:
    services.gateway.fail(ResourceExhausted("the queue is full", reason="QUEUE_FULL", retry_after_seconds=2))
    ran = conch("classify", "a", "-m", "sentiment")
    assert (ran.code, ran.stderr) == (5, "conch: the queue is full (QUEUE_FULL); try again in 2 s\n")


def test_extract_shows_spans_and_says_where_there_are_none(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer(TEXT, {"London": "LOC", "Ada Lovelace": "PER"})
    services.gateway.answer("nothing here", {})
    options = ("-m", "ner", "--aggregation", "first", "--min-score", "0.1")
    first, second, none = conch("extract", TEXT, "nothing here", *options).stdout.splitlines()[1:4]
    assert first.split()[:1] + first.split()[2:6] == ["PER", "Ada", "Lovelace", "0", "12"]
    assert second.split()[:1] + second.split()[2:5] == ["LOC", "London", "28", "34"]
    assert none.split() == ["none", "nothing", "here"]
    (request,) = asked(services)
    assert request.aggregation == inference_pb2.ExtractEntitiesRequest.AGGREGATION_FIRST
    assert request.min_score == pytest.approx(0.1)


def test_answer_reads_one_context_for_all_questions(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer("Where?", "London")
    services.gateway.answer("When?", "")
    ran = conch("answer", "Where?", "When?", "-m", "qa", "--context", TEXT, "--no-answer-threshold", "0.5")
    where, when = ran.stdout.splitlines()[1:3]
    assert where.split()[0] == "London"
    assert when.startswith("there is none")
    (request,) = asked(services)
    assert (list(request.contexts), request.no_answer_threshold) == ([TEXT], 0.5)


def test_answer_reads_a_context_for_each_question(conch: Conch, services: FakeServices) -> None:
    ran = conch("answer", "a?", "b?", "-m", "qa", "-c", "one", "-c", "two", "--top-k", "2", "--json")
    assert [row["answers"][0]["text"] for row in ran.lines[0]["results"]] == ["one", "two"]
    assert asked(services)[0].top_k == 2


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_answer_reads_a_whole_document(
    conch: Conch, services: FakeServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    document = "First line.\n\nSecond line."
    (tmp_path / "document").write_text(document, encoding="utf-8")
    typed(monkeypatch, document)
    options = ("--context-file", str(tmp_path / "document")) if source == "file" else ()
    assert conch("answer", "Which?", "-m", "qa", *options).code == 0
    assert list(asked(services)[0].contexts) == [document]


def test_answer_sends_many_questions_in_batches_with_their_contexts(
    conch: Conch, services: FakeServices, tmp_path: Path
) -> None:
    (tmp_path / "questions").write_text("\n".join(f"question {i}?" for i in range(70)), encoding="utf-8")
    assert conch("answer", "-f", str(tmp_path / "questions"), "-c", TEXT, "-m", "qa", "--json").code == 0
    assert [len(request.questions) for request in asked(services)] == [64, 6]
    assert all(list(request.contexts) == [TEXT] for request in asked(services))


def test_answer_without_a_question_or_a_context_is_usage(
    conch: Conch, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "")
    assert conch("answer", "-c", TEXT).stderr == "conch: no question: give questions or --file\n"
    ran = conch("answer", "Who?", "-m", "qa")
    assert (ran.code, ran.stderr) == (2, "conch: no context: type it, or give a file or stdin\n")


def test_embed_shows_vectors_and_prints_them_unpacked(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer("a", [0.5, 0.25, 0, 0, 0, 0, 0, 0])
    assert "+0.500 +0.250" in conch("embed", "a", "-m", "e").stdout
    ran = conch(
        "embed", "a", "b", "-m", "e", "--numbers", "--dimensions", "2", "--type", "int8", "--kind", "query"
    )
    assert [len(line) for line in ran.lines] == [2, 2]
    request = asked(services)[-1]
    assert (request.kind, request.num_dimensions) == (inference_pb2.EmbedRequest.KIND_QUERY, 2)
    assert request.vector_type == inference_pb2.VECTOR_TYPE_INT8


def test_rank_prints_candidates_best_first(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer("best", 0.99)
    services.gateway.answer("worst", -0.99)
    lines = conch("rank", "query", "worst", "best", "-m", "e").stdout.splitlines()
    assert [line.split() for line in lines[1:3]] == [["0.990", "2", "best"], ["-0.990", "1", "worst"]]


def test_rank_merges_what_does_not_fit_into_one_call(
    conch: Conch, services: FakeServices, tmp_path: Path
) -> None:
    services.gateway.answer("candidate 299", 0.9999)
    (tmp_path / "pages").write_text("\n".join(f"candidate {i}" for i in range(300)), encoding="utf-8")
    ran = conch("rank", "query", "-m", "e", "-f", str(tmp_path / "pages"), "--top-k", "3", "--json")
    (answer,) = ran.lines
    assert len(answer["ranked"]) == 3
    assert answer["ranked"][0]["index"] == 299
    assert [request.version for request in asked(services)] == [0, 1], "all by the version of the first"


def test_translations_are_alone_on_stdout(conch: Conch, services: FakeServices) -> None:
    services.gateway.answer("Good morning", "Guten [bold]Morgen")
    options = ("--from", "en", "--to", "de", "--num-beams", "4", "--length-penalty", "0")
    ran = conch("translate", "Good morning", "Hi", "-m", "en-de", *options)
    assert ran.stdout == "Guten [bold]Morgen\n[de] Hi\n"
    assert ran.stderr.startswith("served by en-de@1 ")
    (request,) = asked(services)
    assert (request.source_language, request.target_language) == ("en", "de")
    assert (request.options.num_beams, request.options.HasField("length_penalty")) == (4, True)


def test_a_summary_that_was_ended_says_so(conch: Conch) -> None:
    ran = conch("summarize", "One two three.", "-m", "s", "--max-new-tokens", "2")
    assert ran.stdout == "One two\n"
    assert "ended by --max-new-tokens: 1" in ran.stderr


def test_summarize_reads_documents_whole(conch: Conch, services: FakeServices, tmp_path: Path) -> None:
    (tmp_path / "article").write_text("One.\n\nTwo.", encoding="utf-8")
    ran = conch("summarize", "Typed.", "-m", "s", "--document", str(tmp_path / "article"), "--json")
    assert [row["text"] for row in ran.lines[0]["summaries"]] == ["Typed.", "One."]
    assert list(asked(services)[0].texts) == ["Typed.", "One.\n\nTwo."]


@pytest.mark.parametrize("option", ["--num-beams", "--max-new-tokens"])
def test_a_number_that_cannot_be_sent_is_usage(conch: Conch, option: str) -> None:
    ran = conch("translate", "a", "-m", "t", option, "-1")
    assert (ran.code, ran.stderr.count(option)) == (2, 1)
