"""How like written texts are to their references: BLEU and chrF for translations, ROUGE for summaries.

Knows texts; knows nothing about models. BLEU and chrF are sacrebleu's, out of 100; ROUGE is that of Lin
2004, as F1 averaged over the texts, out of 1, over words in lower case without stemming.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import sacrebleu

_WORDS = re.compile(r"\w+")
Score = Callable[[Sequence[str], Sequence[str]], dict[str, float]]


def bleu(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Returns the corpus' BLEU (Papineni et al. 2002), tokenized as WMT does (13a)."""
    return {"bleu": float(sacrebleu.corpus_bleu(list(written), [list(references)]).score)}


def chrf(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Returns the corpus' chrF2 (Popović 2015)."""
    return {"chrf": float(sacrebleu.corpus_chrf(list(written), [list(references)]).score)}


def rouge(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Returns ROUGE-1, ROUGE-2 and ROUGE-L."""
    pairs = [(_words(one), _words(other)) for one, other in zip(written, references, strict=True)]
    return {
        "rouge_1": _mean([_overlap(one, other, 1) for one, other in pairs]),
        "rouge_2": _mean([_overlap(one, other, 2) for one, other in pairs]),
        "rouge_l": _mean([_f1(_common(one, other), len(one), len(other)) for one, other in pairs]),
    }


SCORES: dict[str, Score] = {"bleu": bleu, "chrf": chrf, "rouge": rouge}
"""What tasks name in `Task.text_scores`."""


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _overlap(written: Sequence[str], reference: Sequence[str], size: int) -> float:
    one, other = (
        Counter(zip(*(words[i:] for i in range(size)), strict=False)) for words in (written, reference)
    )
    return _f1((one & other).total(), one.total(), other.total())


def _common(written: Sequence[str], reference: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence."""
    row = [0] * (len(reference) + 1)
    for word in written:
        before = 0
        for i, other in enumerate(reference, start=1):
            before, row[i] = row[i], before + 1 if word == other else max(row[i], row[i - 1])
    return row[-1]


def _f1(common: int, written: int, reference: int) -> float:
    # 2PR / (P + R) with P = common / written and R = common / reference.
    return 2 * common / (written + reference) if common else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
