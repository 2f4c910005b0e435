"""The two graphs answer as the model does, all tokens at once or one by one, and say what their axes are."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from services.converter import optimize, seq2seq_export, seq2seq_rules
from services.errors import NotReady
from services.triton.backends.seq2seq.generation import Generator
from services.triton.backends.seq2seq.generation.graphs import Decoding
from tests.unit.converter import seq2seq_models

MODELS = ["t5", "gated_t5", "marian", "bart"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 9), (3, 11, 2), (5, 40, 17)])
def test_logits_are_pytorchs_at_any_extent(name: str, shape: tuple[int, int, int]) -> None:
    exported, (ids, mask, tokens) = seq2seq_models.exported(name), _inputs(*shape)
    got = Generator(exported.folder).graphs.logits(ids, mask, tokens)
    np.testing.assert_allclose(got, _torch_logits(exported, ids, mask, tokens), atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_encoder_gives_its_last_hidden_state(name: str) -> None:
    exported, (ids, mask, _) = seq2seq_models.exported(name), _inputs(3, 11, 1)
    with torch.inference_mode():
        encoder = exported.model.get_encoder()
        want = encoder(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    got = Generator(exported.folder).graphs.hidden_state(ids, mask)
    np.testing.assert_allclose(got[mask == 1], want[mask == 1], atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_beams_that_branch_and_leave_go_on_from_their_parents(name: str) -> None:
    """Two sources of one sequence each become three beams, change places, and the first source leaves."""
    exported, (ids, mask, _) = seq2seq_models.exported(name), _inputs(2, 9, 1)
    decoding = Decoding(Generator(exported.folder).graphs, ids, mask)
    steps = [
        ([[3], [4]], [[0], [1]], [0, 1]),
        ([[5, 6, 7], [8, 9, 10]], [[0, 0, 0], [1, 1, 1]], [0, 1]),
        ([[11, 12, 13], [14, 15, 16]], [[2, 0, 0], [5, 3, 4]], [0, 1]),
        ([[17, 18, 19]], [[4, 5, 3]], [1]),
    ]
    for tokens, parents, rows in steps:
        got = decoding(np.array(tokens), np.array(parents), np.array(rows))
    histories = np.array([[4, 8, 15, 17], [4, 9, 16, 18], [4, 10, 14, 19]])
    want = _torch_logits(exported, ids[[1, 1, 1]], mask[[1, 1, 1]], histories)[:, -1]
    np.testing.assert_allclose(got[0], want, atol=1e-4)


def test_axes_have_names_and_operators_are_standard() -> None:
    folder = seq2seq_models.exported("t5").folder
    encoder, decoder = (onnx.load(folder / n) for n in (seq2seq_export.ENCODER, seq2seq_export.DECODER))
    assert _axes(encoder)["cross.1.value"] == ["source", 4, "token", 8]
    assert _axes(decoder)["past.0.key"] == ["past_sequence", 4, "past", 8]
    assert _axes(decoder)["logits"] == ["source", "beam", "target", seq2seq_models.VOCABULARY]
    for graph in (encoder, decoder):
        assert not optimize.foreign_operators(graph)
        assert graph.ir_version == 9
        assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)


def test_the_encoder_carries_no_weight_of_the_decoder_but_what_crosses() -> None:
    folder = seq2seq_models.exported("t5").folder
    names = {weight.name for weight in onnx.load(folder / seq2seq_export.ENCODER).graph.initializer}
    decoders = [name for name in names if "decoder" in name]
    assert decoders == [] or all("EncDecAttention" in name for name in decoders)


def test_generation_json_says_what_the_checkpoint_fixes() -> None:
    written = json.loads((seq2seq_models.exported("marian").folder / seq2seq_rules.FILE_NAME).read_text())
    pad = seq2seq_models.VOCABULARY - 1
    assert written["decoder_start_token_id"] == written["pad_token_id"] == pad
    assert (written["eos_token_ids"], written["forced_eos_token_ids"]) == ([0], [0])
    assert written["bad_words_ids"] == [[pad]]
    assert written["max_source_length"] == written["max_target_length"] == 64
    assert (
        json.loads((seq2seq_models.exported("t5").folder / seq2seq_rules.FILE_NAME).read_text())[
            "max_target_length"
        ]
        is None
    )


def test_a_setting_that_the_backend_does_not_know_is_refused_before_any_export(tmp_path: Path) -> None:
    model = seq2seq_models.t5()
    model.generation_config.encoder_no_repeat_ngram_size = 3
    with pytest.raises(NotReady, match=r"encoder_no_repeat_ngram_size.: 3") as refused:
        seq2seq_export.export(model, tmp_path)
    assert refused.value.reason == "GENERATION_UNSUPPORTED"
    assert not list(tmp_path.iterdir())


def test_the_models_attention_is_as_it_was_after_export() -> None:
    exported = seq2seq_models.exported("t5")
    assert exported.model.config._attn_implementation in ("sdpa", "eager")


def _inputs(rows: int, source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dice = np.random.default_rng(rows * source)
    mask = (np.arange(source) < dice.integers(1, source + 1, (rows, 1))).astype(np.int64)
    return dice.integers(3, 90, (rows, source)), mask, dice.integers(3, 90, (rows, target))


def _torch_logits(
    exported: seq2seq_models.Exported, ids: np.ndarray, mask: np.ndarray, tokens: np.ndarray
) -> np.ndarray:
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": tokens}
    with torch.inference_mode():
        return exported.model(**{n: torch.from_numpy(a) for n, a in inputs.items()}).logits.numpy()


def _axes(graph: onnx.ModelProto) -> dict[str, list[str | int]]:
    values = (*graph.graph.input, *graph.graph.output)
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
