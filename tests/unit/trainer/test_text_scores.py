"""BLEU, chrF and ROUGE of texts whose scores are known."""

import pytest

from services.trainer.text_scores import bleu, chrf, rouge


def test_equal_texts_have_full_scores_and_strangers_none() -> None:
    texts = ["a quick brown fox jumps over it", "nothing else is as it was before"]
    assert bleu(texts, texts) == {"bleu": pytest.approx(100)}
    assert chrf(texts, texts) == {"chrf": pytest.approx(100)}
    assert set(rouge(texts, texts).values()) == {1.0}
    assert set(rouge(["xyz", ""], ["abc", "def"]).values()) == {0.0}


def test_rouge_counts_words_pairs_of_words_and_words_in_order() -> None:
    # Of 3 and 4 words 3 are common, of 2 and 3 pairs 1 is, and 2 stand in the same order.
    found = rouge(["The dog, cat"], ["the cat the dog"])
    assert found["rouge_1"] == pytest.approx(2 * 3 / 7)
    assert found["rouge_2"] == pytest.approx(2 * 1 / 5)
    assert found["rouge_l"] == pytest.approx(2 * 2 / 7)


def test_a_word_counts_as_often_as_both_have_it() -> None:
    assert rouge(["the the the"], ["the cat"])["rouge_1"] == pytest.approx(2 / 5)
