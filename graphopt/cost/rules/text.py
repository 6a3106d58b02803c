"""Strings, tokens and n-grams.

Work on strings has no arithmetic to count, and a tensor does not say how long its strings are:
those operators count nothing and say so in their note.

    TfIdfVectorizer       one product per weight of its output: tf * idf
    MurmurHash3           per 32-bit word: 2 products, 1 rotation (3), 1 xor, 1 rotation (3),
                          1 product, 1 addition: 11; at the end 8 shifts, xors and products
    NGramHashMapping      for each order m from 2 to n: m products and m - 1 xors; per head a
                          remainder (and an offset)
    NGramRepeatBlock      each earlier n-gram is compared with the last one: n - 1 comparisons
    WordConvEmbedding     per word: a convolution over its characters, + bias, tanh, maximum
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import maximum, product
from graphopt.cost.rules.formulas import bytes_of, combining, fixed

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
    return Work(elementwise=node.output().size * (11 * words + 8))


def n_gram_hashes(node: Operator) -> Work:
    """A hash of the last 2, 3, ... n tokens, reduced to each head's vocabulary."""
    hashes = node.output().size
    orders = range(2, node.integer("max_ngram_size", 2) + 1)
    mixed = node.input().size * sum(2 * order - 1 for order in orders)
    offset = 1 if node.has_input(4) else 0
    return Work(elementwise=mixed + (1 + offset) * hashes)


def n_gram_block(node: Operator) -> Work:
    """The scores, with those that would repeat an n-gram pushed to minus infinity."""
    batch, length = node.input().dims
    size = node.integer("ngram_size", 1)
    starts = batch * (length - size + 1)
    return Work(elementwise=starts * (size - 1))


def word_embedding(node: Operator) -> Work:
    """Characters (..., C) to vectors, convolved with (filters, 1, window, width), the maximum."""
    dims, weight = node.input().dims, node.input(1).dims
    words, places = product(dims[:-1]), dims[-1] - weight[2] + 1
    outputs = words * places * weight[0]
    return Work(
        macs=outputs * weight[2] * weight[3],
        elementwise=outputs + combining(outputs, words * weight[0]),
        transcendentals=outputs,
    )


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
    Rule("com.microsoft", "NGramHashMapping", n_gram_hashes),
    Rule("com.microsoft", "VarlenNGramHashMapping", n_gram_hashes),
    Rule("com.microsoft", "NGramRepeatBlock", n_gram_block),
    Rule("com.microsoft", "WordConvEmbedding", word_embedding),
)
