"""Strings, tokens and n-grams.

Work on strings has no arithmetic to count, and a tensor does not say how long its strings are:
those operators count nothing and say so in their note.

    TfIdfVectorizer       one product per weight of its output: tf * idf
    MurmurHash3           per 32-bit word: 2 products, 1 rotation (3), 1 xor, 1 rotation (3),
                          1 product, 1 addition: 11; at the end 9 shifts, xors and products
    NGramRepeatBlock      each earlier n-gram is compared with the last one: n - 1 comparisons
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import maximum
from graphopt.cost.rules.formulas import bytes_of, fixed

_STRINGS = Work(note="work on strings is not counted")


def tf_idf(node: Operator) -> Work:
    """Counts of n-grams, weighted."""
    weighted = node.text("mode") in ("IDF", "TFIDF")
    return Work(
        elementwise=node.output().size if weighted else 0,
        note="looking the n-grams up is not counted",
    )


def murmur_hash(node: Operator) -> Work:
    """A 32-bit hash of each element; strings are hashed at a length that nobody knows here."""
    words = maximum(bytes_of(node.input(), 1) // 4, 1)
    return Work(elementwise=node.output().size * (11 * words + 9))


def n_gram_block(node: Operator) -> Work:
    """The scores, with those that would repeat an n-gram pushed to minus infinity."""
    batch, length = node.input().dims
    size = node.integer("ngram_size", 1)
    starts = batch * (length - size + 1)
    return Work(elementwise=starts * (size - 1))


RULES = (
    *fixed("", _STRINGS, "RegexFullMatch StringConcat StringNormalizer StringSplit"),
    *fixed("com.microsoft", _STRINGS, "Tokenizer"),
    *fixed(
        "com.microsoft",
        Work(note="comparing token by token is not counted: where it ends depends on the data"),
        "BifurcationDetector",
    ),
    Rule("", "TfIdfVectorizer", tf_idf),
    Rule("com.microsoft", "MurmurHash3", murmur_hash),
    Rule("com.microsoft", "NGramRepeatBlock", n_gram_block),
)
