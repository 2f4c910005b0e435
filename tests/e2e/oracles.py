"""What transformers itself answers to held-out examples, over the checkpoint that a version was made of.

Each returns a list of plain values to compare with; knows nothing about Conch but its checkpoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import pipeline

from tests.e2e.samples import MAX_LENGTH

Rows = Sequence[dict[str, Any]]


def labels(checkpoint: Path, rows: Rows) -> list[dict[str, float]]:
    """Returns the score of each label."""
    ask = pipeline("text-classification", str(checkpoint), top_k=None)
    found = ask([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH, batch_size=16)
    return [{one["label"]: one["score"] for one in answer} for answer in found]


def entities(checkpoint: Path, rows: Rows) -> list[list[tuple[str, int, int, float]]]:
    """Returns label, start, end and score of each entity, neighbouring tokens of a type put together."""
    ask = pipeline("token-classification", str(checkpoint), aggregation_strategy="simple")
    found = ask([row["text"] for row in rows], batch_size=16)
    return [[(e["entity_group"], e["start"], e["end"], float(e["score"])) for e in one] for one in found]


def answers(checkpoint: Path, rows: Rows) -> list[tuple[str, float]]:
    """Returns the best span of each context and the product of its probabilities.

    transformers 5 has no question-answering pipeline any more: this is what it computed, softmax over
    the context's tokens and the first, best span of at most 30 tokens.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval()
    return [_best_span(tokenizer, model, row["text"], row["text_pair"]) for row in rows]


def vectors(checkpoint: Path, rows: Rows) -> list[list[float]]:
    """Returns the mean of each text's last hidden states, scaled to length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    batch = tokenizer(
        [row["text"] for row in rows],
        padding=True,
        truncation=True,
        max_length=MAX_LENGTH,
        return_tensors="pt",
    )
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    found: list[list[float]] = torch.nn.functional.normalize(pooled, dim=-1).tolist()
    return found


def sequences(checkpoint: Path, texts: Sequence[str], **search: Any) -> list[str]:
    """Returns what generate makes of each text, alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    return [_rewritten(tokenizer, model, text, search) for text in texts]


def continuations(checkpoint: Path, prompts: Sequence[str], num_tokens: int) -> list[str]:
    """Returns what generate writes greedily after each prompt, alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    return [_continued(tokenizer, model, prompt, num_tokens) for prompt in prompts]


def _best_span(tokenizer: Any, model: Any, question: str, context: str) -> tuple[str, float]:
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, places = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0)
    with torch.inference_mode():
        out = model(**encoded)
    inside = torch.tensor([place == 1 for place in places])
    starts, ends = (
        torch.softmax(logits[0].masked_fill(~inside & (torch.arange(len(places)) != 0), -1e9), -1)
        for logits in (out.start_logits, out.end_logits)
    )
    spans = torch.triu(starts.outer(ends)) - torch.triu(starts.outer(ends), 30)
    spans[~inside, :] = 0
    spans[:, ~inside] = 0
    first, last = divmod(int(spans.argmax()), len(places))
    return context[offsets[first][0] : offsets[last][1]], float(spans[first, last])


def _rewritten(tokenizer: Any, model: Any, text: str, search: dict[str, Any]) -> str:
    inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
    with torch.inference_mode():
        found = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **search)
    return str(tokenizer.decode(found[0], skip_special_tokens=True))


def _continued(tokenizer: Any, model: Any, prompt: str, num_tokens: int) -> str:
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        found = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=num_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    return str(tokenizer.decode(found[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
