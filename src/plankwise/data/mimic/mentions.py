"""Whose death a sentence tells: the patient's or somebody else's, and whether it is told as a fact.

Plain patterns that look at one sentence and what is before it in its paragraph. The nearest person named before the
verb is taken for its subject, except for bystanders ("with his wife", "daughter at bedside"). No person named means
the patient.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

PERSONS = {  # by the pronoun that stands for them
    "he": r"husband|father|dad(?:dy)?|brother|son|grandpa|uncle|nephew|boyfriend|widower|[mp]gf",
    "she": r"wi(?:fe|ve)|mother|mom(?:my)?|mum|sister|daughter|dtr|grandma|aunt|niece|girlfriend|[mp]gm",
    "": r"spouse|partner|parent|sibling|child(?!['’]s|\W{0,3}pugh|\s+class|\s+[a-c]\b)(?:ren)?|kid|bab(?:y|ie)|infant"
    r"|newborn|twin|triplet|fo?etus(?:es)?|pregnanc(?:y|ie)|cousin|relative|family\s+member|fianc[eé]e?|friend|roommate"
    r"|neighbou?r|co-?worker|proxy|hcp|colleague|classmate|dog|cat(?!\s+scan)|donor|someone|somebody|people|patients|graft"
    r"|they|(?:other|another|fellow)\s+(?:patient|pt|driver|passenger|occupant|person|victim|resident)",
}
OTHER = rf"\b(?:great-?|grand|step-?|god|half[- ]|ex-){{0,3}}(?:{'|'.join(PERSONS.values())})s?(?:-in-law)?\b"
PATIENT = (
    r"(?<!\bof )(?<!\bof the )(?<!\bof this )\b(?:patient|pt)\b(?!['’]?s\b|\s*:)"
    r"|\b(?:mr|mrs|ms|miss)\b\.?|\[\*\*known\b"
    r"|\b(?:this|the)\s+(?:\w+\s+)?(?:gentleman|lady|man|woman|male|female)\b"
)
PRONOUN = r"\b(?:he|she)\b"
REACH = 300  # characters between a person and the verb, at most

_MENTION = re.compile(rf"(?P<other>{OTHER})|(?P<patient>{PATIENT})|(?P<pronoun>{PRONOUN})", re.IGNORECASE)
_OTHER = re.compile(OTHER, re.IGNORECASE)
_GENDERS = {pronoun: re.compile(rf"(?:{words})", re.IGNORECASE) for pronoun, words in PERSONS.items() if pronoun}
_ABBREVIATION = re.compile(r"(?<!\w)(?:pt|mr|mrs|ms|dr|st|vs|approx|s/p|[a-z])\.$", re.IGNORECASE)
_BOUNDARY = re.compile(r"(?<=[.!?;])\s+|\n[^\S\n]*\n\s*|\n(?=[^\S\n]*(?:[-*•]|\d{1,2}[.)]\s|[A-Za-z][^\n:]{0,40}:))")
_FAMILY_HEADING = re.compile(r"\b(?:family\s+(?:medical\s+)?(?:history|hx)|fam\s*hx|fh|fhx)\s*[:\-]", re.IGNORECASE)
_BY_HER_SIDE = re.compile(  # what makes a relative a bystander
    r"(?:[,\s]|and\b|who\b|was\b|were\b|is\b|are\b|has\b|have\b|had\b|been\b|also\b|both\b|then\b|all\b|his\b|her\b"
    rf"|does\b|did\b|not\b|{OTHER}){{0,8}}"
    r"(?:(?:at|by)\s+(?:the\s+|his\s+|her\s+)?bed\s?side|present|notified|informed|aware|called|contacted|updated|arriv"
    r"|visiting|in\s+(?:agreement|(?:the\s+)?room)|agree|consent|declin|refus|request|decid|wish|want|ask|elect|chose"
    r"|sign|opted|made\b|report|state|says|said|told)",
    re.IGNORECASE,
)
_IN_COMPANY = re.compile(
    r"\b(?:with|by|to|from|per|for|(?:presence|company|arms|request)\s+of)\s+(?:\w+\s+){0,2}$", re.IGNORECASE
)
_SEVERAL = re.compile(r"\b(?:both|all|several|many|most)\s+(?:(?:have|had|has|are|were|now)\s+){0,2}$", re.IGNORECASE)
_OWNER = re.compile(rf"{OTHER[:-2]}(?:['’]s|['’])\s+(?:\w+\s+)?\w+$", re.IGNORECASE)
_OF = re.compile(rf"\s+(?:of|on|in)\s+(?:\w+\s+)?{OTHER}", re.IGNORECASE)
_OF_OTHER = re.compile(
    rf"\W{{1,3}}(?:(?:of|on|for)\s+)?(?:(?:his|her|their|the|a)\s+)?(?:\w+\s+)?{OTHER}", re.IGNORECASE
)
_HIS_THING = re.compile(  # "her dog died"; but not "in her sleep"
    r"(?<!\bin )(?<!\bat )(?<!\bon )(?<!\bto )(?<!\bfrom )(?<!\bof )(?<!\bwith )(?<!\bafter )(?<!\bduring )"
    r"(?<!\bdespite )(?<!\bfor )(?<!\bby )(?<!\binto )(?<!\bfollowing )\b(?:his|her|their|its|my|our|your)\s+"
    r"(?:(?!(?:he|she|and|or|but|then|patient|pt|mr|mrs|ms)\b)[\w'’-]+\s+){1,2}"
    r"(?:(?:has|had|have|was|were|is|are|been|recently|just|already|also|both|all)\s+){0,3}$",
    re.IGNORECASE,
)
_ELSEWHEN = re.compile(  # nobody who died then is admitted now
    r"[^.,;]{0,40}?(?:\b(?:day|week|wk|month|mo|year|yr|decade)s?\s+(?:ago|prior|earlier|before|previously|back)\b"
    r"|\blast\s+(?:year|month|week|spring|summer|fall|autumn|winter)\b|\bat\s+(?:the\s+)?scene\b"
    r"|\bwhen\s+(?:he|she|they|the\s+patient|patient|pt)\s+(?:was|were)\b"
    r"|\bin\s+(?:childhood|infancy|the\s+war|wwii|vietnam)\b|\bas\s+(?:a|an)\s+(?:child|infant|baby)\b)",
    re.IGNORECASE,
)
_AGED = re.compile(
    r"[^.;]{0,40}?(?:\bat\s+(?:the\s+)?age\b|\bage[d:]?\s+(?:of\s+)?\d|\bat\s+\d{2,3}(?![\d:]|\s*[ap]\.?m|\s*h)\b|\byoung\b"
    r"|\bin\s+(?:his|her|their)\s+(?:early\s+|mid-?\s?|late\s+)?(?:\d0['’]?s|\w+ties)|\bof\s+old\s+age\b"
    r"|\b(?:early|mid|late)[\s-]+\d0['’]?s)",
    re.IGNORECASE,
)
_NOT_SO = re.compile(
    r"(?:\b(?:if|whether|unless|would|could|can|might|may(?!\s+\d)|should|will|won['’]t|wish\w*|want\w*|hop(?:e|es|ed|ing)"
    r"|afraid|fear\w*|worr(?:y|ies|ied)|scared|dream\w*|imagin\w+|hallucinat\w+|delusion\w*|almost|nearly|as\s+though"
    r"|as\s+if|thinks|believes|convinced|(?:he|she|i|patient|pt)\s+(?:thinks|thought|believe[sd]?|felt|feels)|in\s+case|in\s+the\s+event|risk)\b"
    r"(?:(?!\b(?:and|but|then|so|when|after|before|until|because)\b)[^,;:()])*"
    r"|(?:\bnot|n['’]t|\bnever|\bno|\bno\s+one|\bdenies|\bnobody|\byet\s+to)\s+(?:\w+\s+)?)$",
    re.IGNORECASE,
)
_SEX = re.compile(
    r"(?:\b\d{1,3}|\*\*\])[\s-]*(?:y/?\.?o\.?|years?[\s-]+old|yrs?[\s-]+old)[\s-]*(?:\w+\s+){0,3}?"
    r"(?:(?P<he>male|man|gentleman|m)|(?P<she>female|woman|lady|f))\b",
    re.IGNORECASE,
)
_GENDERED = re.compile(r"\b(?:(?P<he>he|his|him)|(?P<she>she|her|hers))\b", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """A person named in a sentence: `other`, `patient` or `pronoun`, and the pronoun that fits."""

    kind: str
    pronoun: str
    start: int
    end: int


@dataclass(frozen=True)
class Sentence:
    """A sentence and what is known around it.

    Attributes:
        text: the sentence.
        start: where it begins in its text.
        previous: what is before it in the same paragraph, as far as a pronoun reaches.
        family: whether it is part of a family history.
        sex: the pronoun that fits the patient; empty where that is not clear.
    """

    text: str
    start: int = 0
    previous: str = ""
    family: bool = False
    sex: str = ""

    @cached_property
    def mentions(self) -> list[Mention]:
        """Find the persons named, without bystanders."""
        return list(_mentions(self.text))

    @cached_property
    def _starts(self) -> list[int]:
        return [mention.start for mention in self.mentions]

    def is_of_patient(self, start: int, end: int) -> bool:
        """Return whether the words between `start` and `end` have the patient for their subject."""
        before = self.text[max(0, start - 60) : start]
        if _HIS_THING.search(before) or _SEVERAL.search(before) or _ELSEWHEN.match(self.text, end):
            return False
        place = bisect_left(self._starts, start)
        near = [each for each in self.mentions[max(0, place - 6) : place] if start - each.end <= REACH]
        last = near[-1] if near else None
        if last is not None and last.kind == "patient":
            return True
        if self.family or (last is not None and last.kind == "other"):
            return False
        if last is None:
            return not (_OF_OTHER.match(self.text, end) or _AGED.match(self.text, end))
        return not self._is_another(last, near[:-1], aged=_AGED.match(self.text, end) is not None)

    def _is_another(self, pronoun: Mention, before: list[Mention], aged: bool) -> bool:
        """Return whether a pronoun stands for somebody named before it, here or in the sentences before."""
        here = [each for each in before if each.kind != "pronoun"]
        named = here or [each for each in _mentions(self.previous) if each.kind != "pronoun"]
        if not named or named[-1].kind != "other" or named[-1].pronoun not in ("", pronoun.pronoun):
            return False
        if here or aged:
            return True
        return self.sex != pronoun.pronoun and bool(self.sex or named[-1].pronoun)

    def is_owned_by_another(self, start: int, end: int) -> bool:
        """Return whether the noun that ends at `end` is somebody else's: "her husband's death", "autopsy of"."""
        window = self.text[max(0, start - 60) : end]
        if ("'" in window or "’" in window) and _OWNER.search(window):
            return True
        if _OF.match(self.text, end):
            return True
        return self.text[start : start + 3].lower() in ("his", "her") and not self.is_of_patient(start, end)

    def is_fact(self, start: int) -> bool:
        """Return whether what begins at `start` is neither denied nor feared, wished or supposed."""
        return _NOT_SO.search(self.text[max(0, start - 60) : start]) is None


def sentences(text: str, family: bool = False, sex: str = "") -> Iterator[Sentence]:
    r"""Cut a text into sentences; a line break alone ends none, a blank line, a heading or a bullet does.

    Example:
        >>> [each.text for each in sentences("Pt. is\\nfine. Seen by Dr. B.\\n\\nSleeps")]
        ['Pt. is\\nfine.', 'Seen by Dr. B.', 'Sleeps']
    """
    start, paragraph, in_family = 0, 0, family
    for boundary in [*_BOUNDARY.finditer(text), None]:
        end, after = (boundary.start(), boundary.end()) if boundary else (len(text), len(text))
        blank = boundary is None or boundary.group().count("\n") > 1
        if not blank and _ABBREVIATION.search(text, max(start, end - 10), end):
            continue
        sentence = text[start:end]
        in_family = in_family or _FAMILY_HEADING.search(sentence) is not None
        yield Sentence(sentence, start, text[max(paragraph, start - REACH) : start], in_family, sex)
        start, paragraph = after, after if blank else paragraph
        in_family = family or (in_family and not blank)


def sex_of(text: str) -> str:
    """Return the pronoun that fits the patient of a note, by "70 yo male" or else by many pronouns; empty: unclear."""
    stated = _SEX.search(text)
    if stated is not None and stated.lastgroup:
        return stated.lastgroup
    counts = {"he": 0, "she": 0}
    for match in _GENDERED.finditer(text):
        counts[str(match.lastgroup)] += 1
    most, least = sorted(counts, key=lambda name: -counts[name])
    return most if counts[most] > 2 * counts[least] + 2 else ""


def _mentions(sentence: str) -> Iterator[Mention]:
    for match in _MENTION.finditer(sentence):
        start, end = match.span()
        kind, word = str(match.lastgroup), match.group()
        if kind == "pronoun":
            yield Mention(kind, word.lower(), start, end)
        elif kind == "patient":
            yield Mention(kind, "", start, end)
        elif not _is_bystander(sentence, start, end):
            fits = [pronoun for pronoun, words in _GENDERS.items() if words.search(word)]
            yield Mention(kind, fits[0] if fits else "", start, end)


def _is_bystander(sentence: str, start: int, end: int) -> bool:
    """Return whether a relative is owner, company or witness and not the one a sentence is about."""
    if sentence[end : end + 2] in ("'s", "’s", "' ", "’ ") or _BY_HER_SIDE.match(sentence, end):
        return True
    with_them = _IN_COMPANY.search(sentence, max(0, start - 40), start) is not None
    return with_them and re.match(r",?\s+who\b", sentence[end : end + 10]) is None
