"""Triton's `openvino_generation` backend: text generation on CPUs by continuous batching.

Has the tensors of Triton's vLLM backend, so that pools of both kinds are interchangeable. Reads the
parameters max_num_seqs (8), cache_size (GB, 1), precision (f32 or bf16; properties.json beside the IR
goes before it), num_threads (0 = all) and max_num_batched_tokens (256).
The IR lies at default_model_filename, tokenizer.json and the checkpoint's
configuration files beside it. Runs inside Triton's python stubs (numpy < 2) and cannot import Conch.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import configuration
import contract
import sampling
import triton_python_backend_utils as pb
from choosing import Chooser
from engine import Engine, Row
from gauges import Gauges
from language import Language
from paged import PagedModel
from replies import Replies
from writing import Writer

_DEFAULT_FILE = "openvino/openvino_model.xml"


class TritonPythonModel:
    """One instance of a model; each instance is a process of its own with a cache of its own."""

    @staticmethod
    def auto_complete_config(model: Any) -> Any:
        """Returns `model` with the tensors and the policy that it lacks."""
        return contract.complete(model)

    def initialize(self, args: dict[str, str]) -> None:
        """Compiles the model and starts the engine. Raises ValueError if a parameter is wrong."""
        config = configuration.load(args)
        # Not pb.get_model_dir(): that is the file's folder where the file's name has one.
        version = Path(args["model_repository"]) / args["model_version"]
        path = version / (config["default_model_filename"] or _DEFAULT_FILE)
        self._model = _open(path, config)
        self._language = Language(path.parent, self._model)
        self._engine = Engine(
            self._model,
            max_num_seqs=configuration.integer(config, "max_num_seqs") or 8,
            max_step_tokens=configuration.integer(config, "max_num_batched_tokens") or 256,
        )
        gauges = Gauges(self._engine, model=args["model_name"], version=args["model_version"])
        self._replies = Replies(self._language.decode_one, gauges.update)
        self._going = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Lets each request's row wait for its turn; a bad request is answered at once."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._submit(request, sender)
            except Exception as error:  # also a bug must leave no caller waiting
                sender.send(contract.failure(error), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self) -> None:
        """Ends the engine; rows under way are answered UNAVAILABLE."""
        self._going = True
        self._thread.join()
        self._engine.stop(contract.RowGoneError("the model is going", pb.TritonError.UNAVAILABLE))
        self._replies.close()

    def _run(self) -> None:
        while not self._going:
            if self._engine.wait(0.1):
                try:
                    self._engine.step()
                except Exception as error:  # a bug must not leave callers waiting
                    pb.Logger.log_error(f"a step failed: {error!r}")
                    self._engine.fail(error)

    def _submit(self, request: Any, sender: Any) -> None:
        ask = contract.read(request)
        wishes = sampling.parse(ask.sampling_parameters)
        prompt = self._language.encode(ask.prompt)
        grammar = self._language.grammar(wishes)
        chooser = Chooser(
            wishes,
            prompt,
            never_before_min=self._language.ends(wishes),
            with_logprob="cumulative_logprob" in ask.extras,
            grammar=grammar,
        )
        reply = self._replies.open(sender, ask, len(prompt))
        writer = Writer(
            chooser,
            self._language.characters(wishes),
            wishes,
            eos=self._language.eos,
            limit=self._language.limit(wishes, prompt),
            stream=ask.stream,
            emit=reply.emit,
            grammar=grammar,
        )
        reply.row = Row(list(prompt), writer)
        self._engine.submit(reply.row)


def _open(path: Path, config: configuration.Config) -> PagedModel:
    # What versions of one model differ in stands beside the IR, since they share their config.pbtxt.
    precision = _own_precision(path.parent) or configuration.text(config, "precision", "f32")
    if precision not in ("f32", "bf16"):
        raise ValueError(f"parameter precision must be f32 or bf16, not {precision!r}")
    size = configuration.text(config, "cache_size", "1")
    try:
        cache_bytes = int(float(size) * 2**30)
    except (ValueError, OverflowError):
        raise ValueError(f"parameter cache_size must be a number of GB, not {size!r}") from None
    num_threads = configuration.integer(config, "num_threads")
    return PagedModel(path, precision=precision, cache_bytes=cache_bytes, num_threads=num_threads)


def _own_precision(folder: Path) -> str:
    try:
        properties = json.loads((folder / "properties.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    return str(properties.get("INFERENCE_PRECISION_HINT", ""))
