"""Documents, prompts and conversations as the tokens that a causal language model reads and learns to write.

Which tokens are learned is kept in `token_type_ids`, 1 = learned: causal models have no types of their own.
Knows tokens and templates; knows nothing about losses.
"""

from collections.abc import Sequence

import numpy as np

from services.errors import InvalidRequest
from services.tasks.encoding import Encoder, Tokens
from services.tasks.example import Example
from services.tasks.tensors import IGNORED, Array
from services.tasks.text_generation.chat_template import Chat, Segment


def windows(encoder: Encoder, example: Example, chat: Chat) -> tuple[Tokens, ...]:
    """Returns an example's tokens: a document in windows side by side, anything else in one window.

    Raises InvalidRequest if the chat template does not fit a conversation.
    """
    if isinstance(example.target, list):
        return (_one_window(encoder, _conversation(example, chat)),)
    if example.text_pair:
        answer = Segment(example.text_pair + chat.eos_token, True)
        return (_one_window(encoder, [Segment(example.text, False), answer]),)
    return _document(encoder, example.text, chat.eos_token)


def labels(window: Tokens) -> Array:
    """Returns what the loss compares with, `(sequence,)`, IGNORED where nothing is learned."""
    learned = np.array(window.token_type_ids) == 1
    learned[0] = False
    return np.where(learned, window.input_ids, IGNORED).astype(np.int64)


def _document(encoder: Encoder, text: str, eos_token: str) -> tuple[Tokens, ...]:
    rows = [list(window.input_ids) for window in encoder.windows([text], stride=0)[0]]
    if len(rows[-1]) < encoder.max_length:
        rows[-1] += encoder.ids(eos_token, add_special_tokens=False)
    return tuple(Tokens(ids, [1] * len(ids)) for ids in rows)


def _one_window(encoder: Encoder, segments: Sequence[Segment]) -> Tokens:
    ids: list[int] = []
    learned: list[int] = []
    for i, segment in enumerate(segments):
        found = encoder.ids(segment.text, add_special_tokens=i == 0)
        ids += found
        learned += [int(segment.is_written)] * len(found)
    kept = _kept(learned, encoder.max_length)
    return Tokens([ids[i] for i in kept], [learned[i] for i in kept], len(kept) < len(ids))


def _kept(learned: Sequence[int], room: int) -> list[int]:
    """Returns the tokens for which there is room: of the last answer the begin, of what is before it the end.

    At least half of the room goes to what the answer answers, if that is so long.
    """
    begin = max((i + 1 for i, flag in enumerate(learned[:-1]) if not flag), default=0)
    answer = len(learned) - begin
    before = min(begin, max(room - answer, room // 2))
    return [*range(begin - before, begin), *range(begin, begin + min(answer, room - before))]


def _conversation(example: Example, chat: Chat) -> list[Segment]:
    if not chat.template:
        raise InvalidRequest.field(
            "spec.task_spec.text_generation.chat_template",
            "is required: the data holds conversations, and the base model's tokenizer has no chat template",
            reason="NO_CHAT_TEMPLATE",
        )
    try:
        segments = chat.segments(example.target)
    except ValueError as error:
        raise InvalidRequest.field(
            "spec.task_spec.text_generation.chat_template", f"row {example.row}: {error}", reason="BAD_CHAT"
        ) from error
    while not segments[-1].is_written:
        segments.pop()
    return segments
