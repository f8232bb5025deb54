"""Sentences whose content words tell nothing: as tickets in unknown wording, and as text that is no ticket at all."""

import random
import re
from collections.abc import Callable, Mapping
from typing import Final

from wonder.embedded.blends import SHARED_ISSUES
from wonder.embedded.grammar import SYNONYMS, expand, words_of
from wonder.embedded.legal import DECOY_WORDINGS, LEGAL_WORDINGS
from wonder.embedded.phrases import DECOYS, ISSUES, LEGAL
from wonder.embedded.slots import ENDINGS, SYLLABLES
from wonder.embedded.splits import Split, split_of
from wonder.embedded.vocabulary import ADJECTIVES, THEMES, VERBS
from wonder.embedded.wordings import WORDINGS

UNKNOWN: Final[tuple[str, ...]] = (
    "<my> {noun} [is|was|has been|seems|looks|became] {adj}[<now>||].",
    "<my> {noun} [doesn't|does not|won't|can't|never|will not] {verb}[ the {noun}||][<now>|].",
    "I <cant> {verb} <my> {noun}[<now>|].",
    "I <dont> {verb} <my> {noun}[ any more||].",
    "<howto> {verb} [the|my|a] {noun}?",
    "<please> {verb} <my> {noun}[ for {order}| in {city}| on {day}||].",
    "[can I|could I|may I|do you] {verb} [a|the|my|your] {adj} {noun}?",
    "[can you|could you|will you] {verb} [me|us] [a|the|some] {noun}?",
    "I [have|I've|we have|just|already] {verbed} <my> {noun} <ago>[ and now it is {adj}| but the {noun} is {adj}||].",
    "[where|what|who|how] is <my> {noun}?",
    "[why|when|where|how] [did|do|will|can] you {verb} [the|my|our|a] {noun}?",
    "[the|your] {noun} [you {verbed}|from {city}|of {month}|for {order}] [is|was|isn't|wasn't] {adj}.",
    "[{noun}|{adj} {noun}] [not {verbed}|too {adj}|is {adj}|{verbed} twice|not {adj}|missing a {noun}]<now>.",
    "<who> {verbed} [the|my|our] {noun} and [the|now the] {noun} is {adj}.",
    "[something|somebody|nothing|everything] [is|was] {adj} [with|in|on|about] [the|my|your] {noun}.",
    "there [is|was] [a|no|some] {adj} {noun} [in|on|under|behind|with] [the|my|our|your] {noun}.",
    "[there is|there's|I have] a [problem|question|thing|matter] [with|about] [the|my|your] {noun}.",
    "{name} [{verb}s|{verbed}|is] the {noun}[<now>|].",
    "{name} {fake}s the {fake}.",
    "[my|the|your|our] {fake} is {adj}[<now>|].",
    "I <cant> {fake} [the|my] {noun}[<now>|].",
    "[please|can you] {fake} [the|my|our] {fake}[?|.].",
    "[I want|I need|we need|I would like|we'd like] [to {verb} the {noun}|a {adj} {noun}|my {noun} {adj}|the {noun} "
    "{verbed}].",
    "[are you|is your company|do you people] [{adj}|{verb}|against {noun}|in favour of the {noun}|fond of {noun}]?",
    "[is|are|was] [the|your|my] {noun} {adj}[ or {adj}||]?",
    "[how many|which|what kind of] {noun}s [do you|does your boss|can one|do people] {verb}?",
    "[I think|we think|my {noun} says|I noticed|I heard] [your|the|that your] {noun} is {adj}.",
    "[my|our] {noun} [and|or|with] [the|your] {noun} [{verbed}|is {adj}|are {adj}], [what now?|please help.|what can I "
    "do?|.].",
    "{noun} {noun} {adj} {verb} {noun}.",
    "{fake} {fake} {fake}[ {fake}||].",
    "[can you help me|I need help|please help|I have a problem|I have a question|please call me|please answer me|"
    "help|we need support|somebody should look at this|what is going on|this is annoying|I am not happy|nobody "
    "answers me|hello|what now][ please| as I said| again||][?|.|!].",
    "[who|what|where] [is|was] [the|your] [{adj} {noun}|{noun} of the {noun}|{noun} in {city}]?",
    "[hello|thanks|greetings|regards|good day] [from|to] [the|my|our] {noun}[ in {city}||].",
    "[I only|we just|I simply] [wonder|want to know|ask|want to say] [whether|if|that] [the|your|my] {noun} is {adj}.",
    "[tell|show|explain to] me [the|a|your] {adj} {noun}[, please||].",
    "[do you|does your {noun}] [like|know|have|use] [{noun}s|the {noun}|a {adj} {noun}|any {noun}]?",
    "[stop|please stop|why are you] [{verb}ing|with] [the|my|your] {noun}.",
)
"""Tickets whose cue gave way to words that mean nothing to the desk: nobody can know the team."""

PLAIN: Final[tuple[str, ...]] = (
    "[the|a|every|one|that|this] {adj} {noun} {verbed} [the|a|his|her|their] {noun}[ in {city}| on {day}| in {month}||"
    "].",
    "[he|she|the {noun}|a {noun}|nobody|everybody] {verbed} [the|a] {noun} [before|after|during|behind|near] the "
    "{noun}.",
    "[the|a] {noun} of the {noun} [is|was|became|remained] {adj} [and {adj}|but {adj}|].",
    "[they|we|the {noun}s] {verbed} [a|the] {noun} and {verbed} [a|the|another] {noun}.",
    "{noun}s [are|were|can be|become] {adj} [in {month}|when they {verb}|and {adj}|].",
    "[in the {noun}|under the {noun}|last {month}|at {noun}] [there was|he saw|she heard|stood|lay] [a|the] {adj} "
    "{noun}.",
    "[the {adj} {noun}|a {noun}|her {noun}|his {noun}] [and|or|without|with] [the {noun}|a {adj} {noun}|his {noun}].",
    "[if|when|because|while] the {noun} is {adj}, the {noun}s {verb} the {noun}.",
    "[what|how|why] [makes|made] [a|the] {noun} {adj}?",
    "[I|we] {verbed} [a|the|some] {noun} [in {city}|on {day}|last {month}|with the {noun}|at the {noun}].",
    "[my|our] {noun} {verbed} [the|a] {adj} {noun}[ on {day}| last {month}||].",
    "[it|the {noun}] [was|is] [a|the most|such a] {adj} {noun}[ in {city}| in {month}||].",
)
"""Plain statements about anything."""

CLAUSES: Final[tuple[str, ...]] = (
    "[when|after|before|since|while|because|although] [I|we|my {noun}|the {noun}|my wife|my husband] {verbed} the "
    "{noun},",
    "[when|whenever|if|although|because] the {noun} [is|was|gets] {adj},",
    "[I|we] {verbed} [a|the] {noun} and",
    "[sorry to be {adj}, but|honestly,|look,|so,|okay,|well,|listen,|as my {noun} would say,|unfortunately|for some "
    "reason]",
    "[on {day}|last {month}|this morning|yesterday|at the {noun}] [I|we] {verbed} a {noun},",
)
"""Openings of a sentence that go on with anything."""

ENDS: Final[tuple[str, ...]] = (
    "[because|although|while|since|but|and] [the|my|our] {noun} [is|was] {adj}",
    "[because|before|after|so that|and] [I|we] [{verbed}|{verb}|want to {verb}] [the|a|my] {noun}",
    "[for|with|like|near|at] [my|the|a] {adj} {noun}",
    "[which is|this is|it is so|that makes me|I am so] {adj}",
    "[when|whenever|if] [I|we] {verb} [the|my] {noun}",
    "[as usual|to be honest|once more|believe it or not|I think|it seems|for my {noun}|on my {noun}]",
)
"""Ends of a sentence that follow anything."""

FILLERS: Final[tuple[str, ...]] = (
    "just", "really", "actually", "honestly", "please", "now", "also", "somehow", "maybe", "simply", "even",
)  # fmt: skip


def _nouns() -> tuple[str, ...]:
    return tuple(word for theme in THEMES.values() for word in theme.split())


def _free(words: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out every word that some ticket sentence uses: it may tell the team."""
    told = (*SYNONYMS.values(), *(text for team in (WORDINGS, ISSUES) for texts in team.values() for text in texts))
    risky = (*LEGAL, *DECOYS, *LEGAL_WORDINGS, *DECOY_WORDINGS, *(text for text, _ in SHARED_ISSUES))
    known = words_of(" ".join((*told, *risky)))
    return tuple(word.replace("-", " ") for word in words if word not in known)


def _by_split(words: tuple[str, ...]) -> Mapping[Split, tuple[str, ...]]:
    return {
        "train": tuple(word for word in words if split_of(word) == "train"),
        "held_out": tuple(word for word in words if split_of(word) == "held_out"),
    }


_PASTS: Final = dict(pair.split("/") for pair in VERBS.split())
FREE_NOUNS: Final = _by_split(_free(_nouns()))
FREE_ADJECTIVES: Final = _by_split(_free(tuple(ADJECTIVES.split())))
FREE_VERBS: Final = _by_split(_free(tuple(_PASTS)))
_SLOT: Final = re.compile(r"\{(noun|adj|verbed|verb|fake|name)\}")


def unknown_wording(rng: random.Random, split: Split) -> str:
    """Return a sentence that is written like a ticket and tells no team; other slots are still open."""
    return foreign(rng, rng.choice(UNKNOWN), split)


def embroider(rng: random.Random, sentence: str, split: Split) -> str:
    """Return the sentence as people write it: with a clause around it, an adjective or a small word put in."""
    chance = rng.random()
    if chance < 0.3:
        clause = foreign(rng, rng.choice(CLAUSES), split)
        own = sentence.startswith(("I ", "I'", "{"))
        return f"{clause} {sentence if own else sentence[:1].lower() + sentence[1:]}"
    if chance < 0.6:
        stop = sentence[-1] if sentence[-1] in ".?!" else ""
        end = foreign(rng, rng.choice(ENDS), split)
        return f"{sentence.rstrip('.?!')}{rng.choice(('', ','))} {end[:1].lower()}{end[1:]}{stop}".replace(" i ", " I ")
    words = sentence.split(" ")
    if chance < 0.8:
        places = [place for place, word in enumerate(words[:-1]) if word.lower() in ("my", "the", "our", "your", "a")]
        if places:
            words.insert(rng.choice(places) + 1, rng.choice(FREE_ADJECTIVES[split]))
    else:
        words.insert(rng.randint(1, len(words)), rng.choice(FILLERS))
    return " ".join(words)


def plain_statement(rng: random.Random, split: Split) -> str:
    """Return a sentence about anything but the desk."""
    return foreign(rng, rng.choice(PLAIN), split)


def foreign(rng: random.Random, wording: str, split: Split) -> str:
    """Expand a wording and fill its foreign words, each from the words of the split."""
    makers: Mapping[str, Callable[[], str]] = {
        "noun": lambda: rng.choice(FREE_NOUNS[split]),
        "adj": lambda: rng.choice(FREE_ADJECTIVES[split]),
        "verb": lambda: rng.choice(FREE_VERBS[split]),
        "verbed": lambda: _PASTS[rng.choice(FREE_VERBS[split]).replace(" ", "-")].replace("-", " "),
        "fake": lambda: fake_word(rng, split),
        "name": lambda: fake_word(rng, split).capitalize(),
    }
    text = _SLOT.sub(lambda slot: makers[slot[1]](), expand(rng, wording))
    return text if text.startswith("{") else text[:1].upper() + text[1:]


def fake_word(rng: random.Random, split: Split) -> str:
    """Return a word that means nothing."""
    while True:
        word = "".join(rng.choices(SYLLABLES, k=rng.choice((1, 2)))) + rng.choice(
            (*ENDINGS, "mble", "rp", "zint", "ck")
        )
        if split_of(word) == split:
            return word
