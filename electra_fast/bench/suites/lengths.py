"""Lengths of real texts, in tokens of BERT's uncased vocabulary with [CLS] and [SEP]: batches of 32 as they come."""

# Sentences of film reviews (Pang & Lee polarity 2.0, 200 reviews split at full stops; all 6,765: mean 27.6, median 25).
# Of random batches the one nearest to SST-2's development set, whose batches of 32 have a mean of 25 and a longest of
# 53. Mean 25.0, longest 53.
SENTENCES = (
    28, 13, 29, 13, 29, 20, 18, 39, 20, 18, 20, 32, 40, 53, 14, 34,
    17, 17, 29, 44, 27, 41, 26, 9, 25, 24, 25, 15, 23, 20, 23, 15,
)  # fmt: skip

# Paragraphs of Wikipedia (contexts of SQuAD 1.1's development set; all 2,067: mean 161). Of random batches the one
# nearest to those of WikiText's paragraphs, mean 150, longest 427. Mean 149.5, longest 432.
PARAGRAPHS = (
    167, 200, 67, 188, 199, 221, 135, 114, 99, 104, 105, 132, 167, 170, 85, 157,
    111, 97, 41, 432, 147, 127, 138, 144, 171, 189, 160, 132, 152, 120, 201, 113,
)  # fmt: skip
