"""The wordings in which a note tells that its patient died: version 2 of the leak filter, a rule for each kind.

A rule looks for a phrase in a sentence, leaves out what the phrase is not about, and asks whose death it is and
whether it is told as a fact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from plankwise.data.mimic.mentions import Sentence

CONTEXT = 60  # characters around a phrase in which it is looked for what it is not about


@dataclass(frozen=True)
class Rule:
    """A kind of wording: a phrase, phrases around it that mean something else, and how its person is found.

    Attributes:
        name: what counts are listed under.
        cues: text in lower case that is in whatever the phrase finds; looking for it is fast.
        phrase: what is looked for; a group `verb` marks the words that someone is the subject of.
        unless: nothing is told where one of these covers the phrase.
        person: `subject` of a verb, `owner` of a noun, or `nobody` else than the patient is possible.
        wished: whether a wish or a denial tells as much: "does not want an autopsy".
    """

    name: str
    cues: tuple[str, ...]
    phrase: re.Pattern[str]
    unless: re.Pattern[str] | None = None
    person: str = "subject"
    wished: bool = False

    def tells(self, sentence: Sentence) -> bool:
        """Return whether a sentence tells the patient's death in this rule's wording."""
        return any(self._is_told(sentence, match) for match in self.phrase.finditer(sentence.text))

    def may_be_in(self, lowered: str) -> bool:
        """Return whether a text in lower case has one of the cues."""
        return any(cue in lowered for cue in self.cues)

    def _is_told(self, sentence: Sentence, match: re.Match[str]) -> bool:
        start, end = match.span("verb") if "verb" in self.phrase.groupindex and match["verb"] else match.span()
        if self.unless is not None:
            window = self.unless.finditer(sentence.text, max(0, start - CONTEXT), end + CONTEXT)
            if any(each.start() < end and start < each.end() for each in window):
                return False
        if self.person != "nobody" and sentence.is_owned_by_another(start, end):
            return False
        if self.person == "subject" and not sentence.is_of_patient(start, end):
            return False
        return self.wished or sentence.is_fact(start)


def _rule(
    name: str,
    cues: tuple[str, ...],
    *phrases: str,
    unless: tuple[str, ...] = (),
    person: str = "subject",
    wished: bool = False,
) -> Rule:
    covers = re.compile("|".join(unless), re.IGNORECASE) if unless else None
    return Rule(name, cues, re.compile("|".join(phrases), re.IGNORECASE), covers, person, wished)


_WHO = r"\b(?:patient|pt\.?|s?he)\s+(?:(?:was|is|has|had|then|subsequently|later)\s+){0,3}"
_GAP = r"(?:\s+(?!(?:and|then|but|when|so|he|she|patient|pt)\b)\w+){0,3}?\s+"
_TIME = r"(?:approximately\s+|about\s+)?(?:\d{1,2}:\d\d|\d{3,4}\b|\d{1,2}\s*[ap]\.?m|\[\*\*)"
_JOB = r"\b(?:work(?:s|ed|ing)?|retired|employed|occupation|job|owns?|owned|career)\b.{0,60}?"
_THINGS = (
    r"(?:prescription|script|rx|medication|med|drug|pill|tablet|inhaler|bottle|suppl(?:y|ie)|insurance|coverage"
    r"|licen[cs]e|visa|passport|order|consent|certificate|authori[sz]ation|referral|epi-?pen|vial|lot|batch|card"
    r"|contract|lease|policy|benefit|refill|vaccine|food|milk|product|kit|solution|patch(?:e)?|permit|section)s?"
)
_BREATH = r"(?:air|gas|volume|tidal|breath|co2|minute|v[te]+|lung|fraction|o2|oxygen|concentration|nitric|carbon)"
_FEELINGS = (
    r"(?:pain|symptom|noise|battery|phone|car|engine|pacemaker|pacer|device|pump|sensation|feeling|attack|cough|fever"
    r"|discomfort|spasm|nausea|headache|dizziness)s?"
)

RULES = (
    _rule(
        "expired",
        ("expire",),
        r"\bexpired\b",
        r"\b(?:patient|pt\.?|s?he)\s+expires\b",
        unless=(
            rf"\b{_THINGS}{_GAP}expired",
            rf"\b(?:it|which|that){_GAP}expired",
            rf"\bexpired\s*:\s+(?:\w+\s+)?{_THINGS}\b",
            rf"\bexpired\s+(?:{_THINGS}|{_BREATH}|inspir\w*|date|ventilation|flow|phase|contrast)\b",
            r"\b(?:inspired|forced|mixed|tidal|fev1?|fvc|volume|air|gas)\W{1,3}(?:(?:and|to|or)\s+)?expired",
        ),
    ),
    _rule(
        "died",
        ("died", "dies"),
        r"\bdied\b",
        r"\b(?:patient|pt\.?)\s+dies\b",
        unless=(
            r"\bdied\s+(?:down|away|off|out|back)\b",
            rf"\b{_FEELINGS}{_GAP}died",
            r"\bdied\s+(?:laughing|of\s+(?:embarrassment|laughter))",
        ),
    ),
    _rule(
        "passed away",
        ("pass", "lost"),
        r"\bpass(?:ed|es)[\s-]+away\b",
        r"\bpassed\s+(?:peacefully|quietly|comfortably)\b",
        rf"{_WHO}passed\s+(?:at\s+{_TIME}|in\s+(?:his|her)\s+sleep)",
        r"\b(?:patient|pt\.?|s?he)\s+(?:has|had)\s+passed(?:\s+on)?(?=\s*(?:[.!;]|$))",
        r"\blost\s+(?:his|her)\s+(?:life|battle|fight)\b",
        r"\b(?:patient|pt\.?|s?he)\s+passed(?=\s*(?:[.!;]|$))",
        unless=(
            rf"\b{_FEELINGS}{_GAP}passed\s+away",
            r"\b(?:test|trial|stud|eval|exam|screen|sbt|swallow|speech|void|check|stone)\w*\b.{0,60}?passed",
        ),
    ),
    _rule(
        "deceased",
        ("deceased",),
        r"\bdeceased\b",
        unless=(r"\bdeceased[\s-]+(?:\w+[\s-]+){0,2}(?:donor|person|transplant)",),
    ),
    _rule(
        "dead",
        ("dead", "doa", "death"),
        r"\b(?:found|declared|certified|confirmed|legally|clinically)\s+(?:to\s+be\s+)?dead\b",
        r"\b(?:is|was|were)\s+(?:now\s+|already\s+)?dead\b",
        r"\bdead\s+(?:up)?on\s+arrival\b",
        r"(?-i:\bDOA\b)",
        r"^\W*(?:dead|death)\W*$",
        unless=(
            r"\bdead\s+(?:space|tissue|skin|bowel|weight|muscle|bone|tooth|teeth|nerve|battery|end|line)",
            rf"\b(?:tissue|bowel|gut|toe|leg|arm|foot|skin|line|tooth|teeth|muscle|finger|limb|gallbladder|{_FEELINGS})"
            rf"s?{_GAP}(?:now\s+|already\s+)?(?:found\s+)?(?:to\s+be\s+)?dead",
        ),
    ),
    _rule(
        "pronounced",
        ("pronounced",),
        r"\bpronounced\s+(?:(?:him|her|patient|pt)\s+)?(?:dead|deceased|expired)\b",
        rf"\bpronounced\s+(?:(?:at|@|on)\s*)?{_TIME}",
        r"\bpronounced\s+by\s+(?:the\s+)?(?:\[|dr\b|md\b|np\b|physician|doctor|team|house|intern|resident|ems)",
        rf"{_WHO}pronounced(?=\s*(?:[.,;!]|$))",
        r"\b(?:asystol\w*|pulseless|(?:without|no)\s+(?:a\s+)?(?:pulse|heart\s*beat)|apneic)\b.{0,80}?(?P<verb>\bpronounced)",
        unless=(r"\b(?:more|less|most|very|quite|particularly|especially|so)\s+pronounced\b",),
    ),
    _rule(
        "brain death",
        ("brain",),
        r"\bbrain[\s-]+dea(?:d|th)\b",
        unless=(
            r"\b(?:not|cannot|no|never|without|rule\s+out|r/o|possible|possibly|question|concern\w*|pending|await\w*|consider\w*)"
            r"\b[^.,;]{0,50}?brain[\s-]+dea\w+",
            r"n['’]t\b[^.,;]{0,50}?brain[\s-]+dea\w+",
            r"\bbrain[\s-]+dead\s+donor",
            r"\bbrain[\s-]+death\s+(?:exam|test|protocol|evaluation|stud|work)"
            r"(?!.{0,60}(?:confirm|consistent|positive|met\b|declared|pronounced|completed))",
        ),
    ),
    _rule(
        "not survived",
        ("surviv", "make", "made", "resuscitat", "revived", "saved", "code"),
        r"\b(?:(?:did\s+not|didn['’]t|failed\s+to)\s+survive)\b",
        r"\b(?:did\s+not|didn['’]t)\s+make\s+it(?=\s*(?:[.,;!]|$))",
        r"\b(?:could\s+not|couldn['’]t|unable\s+to)\s+be\s+(?:resuscitated|revived|saved)\b",
        r"\bresuscitat\w+\s+(?:efforts?\s+|attempts?\s+)?(?:was|were)\s+(?:\w+\s+)?"
        r"(?:unsuccessful|futile|stopped|ceased|terminated|called\s+off|discontinued|abandoned)",
        r"\bunsuccessful(?:ly)?\s+resuscitat\w+",
        r"\bcode\s+(?:was\s+)?(?:called\s+off|terminated|stopped|unsuccessful)",
        unless=(r"\b(?:fluid|volume|iv)\s+resuscitat\w+",),
    ),
    _rule(
        "breathing ceased",
        ("ceased", "breath"),
        r"\bceased\s+(?:to\s+breathe?|breathing|respirations?)\b",
        r"\b(?:respirations?|breathing|heart\s*beat|cardiac\s+activity|vital\s+signs)\s+(?:\w+\s+)?ceased\b",
        r"\b(?:took|drew)\s+(?:his|her)\s+(?:last|final)\s+breath",
        r"\bbreathed\s+(?:his|her)\s+last\b",
        unless=(r"\bceased\b.{0,60}(?:resum|restart|return|second|intubat|apnea)",),
    ),
    _rule(
        "succumbed",
        ("succumb", "demise", "exitus", "fatal"),
        r"\bsuccumb(?:ed|s)\b",
        r"\bdemise\b",
        r"\bexitus\b",
        r"\bsuffered\s+(?:a\s+)?fatal\b",
        unless=(
            r"\b(?:fo?etal|intrauterine|neonatal|embryonic|pregnancy|perinatal|cell|graft|marital|financial)\s+demise",
            r"\bdemise\s+of\s+(?!(?:the\s+|this\s+)?(?:patient|pt)\b)",
            r"\bsuccumbed\s+to\s+(?:temptation|(?:peer\s+)?pressure|the\s+urge|sleep|alcohol|drink\w*|cravings?)",
        ),
    ),
    _rule(
        "death recorded",
        ("death", "tod", "passing", "expiration", "demise"),
        r"\b(?:time|date|hour|cause|manner)\s+of\s+(?:(?:his|her|the|patient['’]?s|pt['’]?s)\s+)?(?:death|expiration)\b",
        r"(?-i:\bTOD\b)\W{0,3}(?:was\s+|is\s+|at\s+)?(?:\d|\[)",
        r"\bdeath\s+(?:certificate|note|summary|occurred|(?:was|is)\s+(?:pronounced|declared|confirmed|called|due))\b",
        r"\b(?:pronounced|declared|confirmed|certified)\s+(?:(?:the|his|her|pt|patient)\W{0,2}\s*)?death\b",
        r"\b(?:notified|informed|aware|told)\s+(?:\w+\s+){0,3}?of\s+(?:(?:the|his|her|patient['’]?s|pt['’]?s)\s+)?"
        r"(?:death|passing|demise|expiration)\b",
        r"\b(?:patient|pt)['’]?s\s+(?:\w+\s+)?(?:death|passing|expiration)\b",
        r"\b(?:(?:leading|led)\s+to|result(?:ing|ed)\s+in|arrest\s+and)\s+(?:(?:the|his|her)\s+)?death\b",
        r"\b(?:his|her)\s+(?:untimely\s+|subsequent\s+|eventual\s+)?(?:death|passing)\b(?!\s+(?:out|gas|flatus|urine|wish))",
        unless=(r"\b(?:leading|common|risk|predictor)\w*\b.{0,30}?of\s+death", r"\bdate\s+of\s+expiration\b"),
        person="owner",
    ),
    _rule(
        "comfort care until death",
        ("died", "expired", "passed"),
        r"\b(?:cmo|comfort\s+(?:measures?|care)|made\s+comfortable|terminal(?:ly)?\s+(?:extubat|wean)\w*"
        r"|(?:care|support|pressors?)\s+(?:was|were)\s+withdrawn|withdrawal\s+of\s+(?:care|(?:life\s+)?support))\b"
        r".{0,200}?(?P<verb>\b(?:expired|died|passed\s+away))\b",
        person="nobody",
    ),
    _rule(
        "disposition",
        ("dispo", "condition", "status", "outcome", "discharge"),
        r"\b(?:disposition|dispo|condition|status|outcome)(?:\s+(?:on|at|upon)\s+discharge)?\s*[:=–-]\s*(?:(?:patient|pt)\s+)?"
        r"(?:expired|deceased|dead|died|death)\b",
        r"\bdischarged?\s*(?:to|as|:)\s*(?:expired|deceased|dead|morgue)\b",
    ),
    _rule(
        "body",
        ("body", "morgue", "funeral", "mortem"),
        r"\b(?:the|his|her|patient['’]?s|pt['’]?s)\s+body\s+(?:was|has\s+been|is)\s+(?:\w+\s+)?(?:released|transferred"
        r"|taken|sent|transported|picked\s+up|claimed|brought|viewed|prepared|cremated|washed|bathed|donated)\b",
        r"\bmorgue\b",
        r"\bfuneral\s+(?:home|director|arrangements)\b",
        r"\bpost[\s-]*mortem\s+care\b",
        unless=(rf"{_JOB}\b(?:morgue|funeral)",),
        person="owner",
        wished=True,
    ),
    _rule(
        "autopsy",
        ("autops", "mortem", "coroner", "examiner", "me "),
        r"\bautops(?:y|ies)\b",
        r"\bpost[\s-]*mortem\b(?!\s+care)",
        r"\b(?:coroner|medical\s+examiner)\b",
        r"(?-i:\bME\b)\s+(?:was\s+)?(?:notified|called|contacted|declined|waived|accepted)\b",
        unless=(rf"{_JOB}\b(?:autops\w+|coroner|medical\s+examiner)", r"\bindependent\s+medical\s+examiner"),
        wished=True,
    ),
    _rule(
        "organ bank",
        ("organ", "neob"),
        r"\borgan\s+bank\b",
        r"\bneob\b",
        r"\borgan\s+(?:procurement|harvest\w*)\b",
        unless=(
            r"\b(?:organ\s+bank|neob)\b.{0,40}?\b(?:offer|recipient|transplant|list)\w*",
            r"\b(?:offer|recipient|transplant|list)\w*\b.{0,40}?\b(?:organ\s+bank|neob|organ\s+procurement)",
        ),
        person="owner",
        wished=True,
    ),
    _rule(
        "rest in peace",
        ("peace", "rip", "r.i", "r. i"),
        r"\brest(?:s|ing)?\s+in\s+peace\b",
        r"\br\.\s?i\.\s?p\b\.?",
        r"(?-i:\bRIP\b)(?=\s*(?:[.!]|$))",
        wished=True,
    ),
)
