"""Triton's `seq2seq` backend: generates with an encoder-decoder's ONNX graphs, greedily or by beam search.

A call's rows may each have their own parameters. Calls that Triton's dynamic batcher hands over
together run together; each is answered as soon as its own rows are done, not when the last one is.
Reads the parameter intra_op_thread_count. Runs inside Triton's python stubs (numpy < 2) and cannot
import Conch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configuration
import generation
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb

_INPUTS = (
    configuration.Tensor("input_ids", "TYPE_INT64", (-1, -1)),
    configuration.Tensor("attention_mask", "TYPE_INT64", (-1, -1)),
    configuration.Tensor("num_beams", "TYPE_INT64", (-1, 1)),
    configuration.Tensor("max_new_tokens", "TYPE_INT64", (-1, 1)),
    configuration.Tensor("min_new_tokens", "TYPE_INT64", (-1, 1)),
    configuration.Tensor("no_repeat_ngram_size", "TYPE_INT64", (-1, 1)),
    configuration.Tensor("length_penalty", "TYPE_FP32", (-1, 1)),
)
_OUTPUTS = (
    configuration.Tensor("sequences", "TYPE_INT64", (-1, -1)),
    configuration.Tensor("sequence_scores", "TYPE_FP32", (-1, 1)),
    configuration.Tensor("sequence_lengths", "TYPE_INT64", (-1, 1)),
    configuration.Tensor("sequence_ended", "TYPE_INT64", (-1, 1)),
)


class TritonPythonModel:
    """One instance of a model; each instance is a process of its own."""

    @staticmethod
    def auto_complete_config(model: Any) -> Any:
        """Returns `model` with the inputs and outputs that every version has."""
        configuration.complete(model, _INPUTS, _OUTPUTS)
        return model

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graphs. Raises ValueError if config.pbtxt says something else than they do."""
        config = configuration.load(args)
        configuration.check(config, _INPUTS, _OUTPUTS)
        self._generator = generation.Generator(Path(pb.get_model_dir()), _options(config))

    def execute(self, requests: Sequence[Any]) -> list[None]:
        """Answers each request by its own sender, so that none waits for a longer one."""
        calls = [_Call(request, self._generator.rules) for request in requests]
        running = [call for call in calls if not call.answered]
        try:
            if running:
                _run(self._generator, running)
        except Exception as error:
            for call in running:
                call.fail(str(error), pb.TritonError.INTERNAL)
        return [None] * len(requests)


class _Call:
    """A request, its rows and what they came to."""

    def __init__(self, request: Any, rules: Any) -> None:
        self._request = request
        self._sender = request.get_response_sender()
        self._rules = rules
        self.answered = False
        self.tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.rows = len(self.tensors["input_ids"])
        self._finished: list[Any] = []
        if self.is_abandoned():
            return
        try:
            rules.check_source(self.tensors["input_ids"], self.tensors["attention_mask"])
            self._parameters = generation.Parameters.gathered(self.tensors).within(rules)
            self._parameters.check(rules)
        except ValueError as error:
            self.fail(str(error), pb.TritonError.INVALID_ARG)

    def is_abandoned(self) -> bool:
        """Returns whether nobody waits any more; answers whoever has just gone."""
        if not self.answered and self._request.is_cancelled():
            self.fail("cancelled", pb.TritonError.CANCELLED)
        return self.answered

    def fail(self, message: str, code: int) -> None:
        """Answers with an error, unless there was an answer."""
        self._answer(pb.InferenceResponse(error=pb.TritonError(message, code)))

    def finish(self, row: int, finished: Any) -> None:
        """Takes a row's answer; with the last one, answers."""
        self._finished.append((row, finished))
        if len(self._finished) < self.rows:
            return
        answers = [answer for _, answer in sorted(self._finished, key=lambda pair: pair[0])]
        tensors = generation.tensors(answers, self._rules, self._parameters)
        outputs = [pb.Tensor(name, array) for name, array in tensors.items()]
        self._answer(pb.InferenceResponse(output_tensors=outputs))

    def _answer(self, response: Any) -> None:
        if self.answered:
            return
        self.answered = True
        self._sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _run(generator: Any, calls: Sequence[_Call]) -> None:
    owners = np.repeat(np.arange(len(calls)), [call.rows for call in calls])
    firsts = np.cumsum([0, *(call.rows for call in calls)])

    def abandoned(rows: Any) -> Any:
        gone = np.array([call.is_abandoned() for call in calls])
        return gone[owners[rows]]

    source = {name: _stacked(calls, name) for name in ("input_ids", "attention_mask")}
    names = calls[0].tensors.keys() - source.keys()
    rest = {name: np.concatenate([call.tensors[name] for call in calls]) for name in names}
    parameters = generation.Parameters.gathered(rest).within(generator.rules)
    for finished in generator.generate(**source, parameters=parameters, watch=abandoned):
        for answer in finished:
            owner = owners[answer.row]
            calls[owner].finish(answer.row - firsts[owner], answer)


def _stacked(calls: Sequence[_Call], name: str) -> Any:
    """Returns the rows of all calls, padded by zeros, which their masks hide."""
    arrays = [call.tensors[name] for call in calls]
    width = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays])


def _options(config: configuration.Config) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = configuration.integer(config, "intra_op_thread_count")
    # Threads that spin between steps take the cores from the gateway beside us.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
