"""Contamination: lines of a corpus that are, or nearly are, texts that a model will be tested on.

N-grams of words are compared, as for GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C), but of five words instead
of thirteen, since posts in social media are short, and by the share that is equal instead of by a single one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

NGRAM = 5  # words
SHARE = 0.8  # of the n-grams of a text, or of a line within a long text, that make them nearly the same
FEWEST = 4  # n-grams: something shorter has to be equal as a whole, since common phrases are no evidence
_WORD = re.compile(r"\w+")
Gram = tuple[str, ...]


class ContaminationFilter:
    """Finds lines that are equal or nearly equal to given texts, ignoring case, punctuation and white space.

    A line and a text are nearly equal if they share at least 80 % of the n-grams of the one that has fewer, so that a
    text inside a long line is found, and so is a line inside a long text.

    Args:
        texts: that a model will be tested on. Only their n-grams are kept.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: set[Gram] = set()
        self._texts_with: defaultdict[Gram, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        digest = hashlib.sha256(f"{NGRAM}/{SHARE}/{FEWEST}".encode())
        for text in texts:
            words = _words(text)
            digest.update("\0".join((*words, "\n")).encode("utf-8", "surrogatepass"))
            grams = _grams(words)
            if words:
                self._whole.add(words)
            if len(grams) >= FEWEST:
                for gram in grams:
                    self._texts_with[gram].append(len(self._sizes))
                self._sizes.append(len(grams))
        self.identity = digest.hexdigest()  # equal for equal texts

    def matches(self, line: str) -> bool:
        """Return whether a line is, or nearly is, one of the texts."""
        words = _words(line)
        if words in self._whole:
            return True
        grams = _grams(words)
        if len(grams) < FEWEST:
            return False
        known = grams & self._texts_with.keys()
        if len(known) < SHARE * FEWEST:
            return False
        shared = Counter(text for gram in known for text in self._texts_with[gram])
        return any(count >= SHARE * min(self._sizes[text], len(grams)) for text, count in shared.items())


def _words(text: str) -> Gram:
    return tuple(_WORD.findall(text.casefold()))


def _grams(words: Gram) -> set[Gram]:
    return set(zip(*(words[start:] for start in range(NGRAM)), strict=False))
