"""Expands wordings: `[a|b]` is a choice, `<name>` a list of synonyms, `{slot}` is left for the world to fill."""

import random
import re
from collections.abc import Mapping
from typing import Final

SYNONYMS: Final[Mapping[str, str]] = {
    "I": "I|I|I|we",
    "my": "my|my|our|the|this",
    "your": "your|your|the",
    "cant": "can't|can't|cannot|can not|could not|couldn't|am unable to|am not able to",
    "dont": "don't|do not|never|did not|didn't",
    "isnt": "isn't|is not",
    "please": "please|please|kindly|could you please|can you|could you|I need you to|I'd like you to|would you",
    "howto": "how do I|how can I|how do we|how would I|where can I|where do I|can you tell me how to|what do I do to",
    "want": "want to|want to|would like to|'d like to|need to|have to|am hoping to|wish to|wanna",
    "still": "still |still |yet again |once more |||||",
    "now": " now| today| since {day}| for days| for a week| this morning| again| any more| anymore||||",
    "ago": "yesterday|last week|two weeks ago|on {day}|in {month}|a month ago|{count} days ago|last month",
    "parcel": "parcel|package|order|delivery|shipment|box|packet|{item}|goods|stuff I ordered|thing I ordered|{order}",
    "courier": "courier|driver|delivery man|delivery guy|postman|carrier|delivery van|delivery driver|delivery service",
    "app": "app|website|site|program|software|portal|mobile app|page|web shop|tool|application|dashboard",
    "device": "{item}|{item}|{item}|device|machine|unit|gadget|thing|product",
    "login": "log in|sign in|login|get in|log on|access my account|get into my account|log into my account|sign into "
    "my profile|get back into my account",
    "password": "password|password|passcode|pin|pass word|login details|login|user name|username|pin code|credentials",
    "account": "account|account|profile|user account|customer account|online account|login",
    "bill": "bill|invoice|invoice|statement|last bill|last invoice|latest invoice|monthly bill|bill for {month}|"
    "invoice for {month}|{month} invoice",
    "money": "money|money|cash|payment|{amount}|full amount",
    "charged": "charged|charged|billed|debited|invoiced",
    "twice": "twice|twice|two times|double|a second time|more than once|three times|2x",
    "subscription": "subscription|membership|plan|contract|monthly plan|yearly plan|account",
    "broken": "broken|faulty|dead|defective|not working|acting up|playing up|out of order|buggy|unusable",
    "buy": "buy|order|purchase|get|pick up",
    "units": "units|pieces|of them|licences|seats|users|people|of your {item}s|{item}s|copies|employees",
    "back": "back|back to you",
    "size": "size|colour|color|model|version|one|fit|shade",
    "who": "my wife|my husband|my son|my daughter|my mother|my father|my child|my kid|my neighbour|my colleague|"
    "a customer of ours|my friend|my brother|my grandmother|our baby|one of our staff|I",
    "lawyer": "lawyer|lawyer|attorney|solicitor|lawyers|legal team|barrister|legal counsel|legal adviser|law firm",
    "company": "you|you|your company|your firm|your business|you people|your shop",
    "week": "by {day}|within {count} days|soon|today|this week|in the next few days|by the end of the week|immediately",
}
"""Alternatives by name, separated by bars; an empty one leaves nothing, and a repeated one is likelier."""

_SYNONYM: Final = re.compile(r"<(\w+)>")
_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")


def expand(rng: random.Random, wording: str) -> str:
    """Return one sentence of a wording, its slots still open."""
    text = _SYNONYM.sub(lambda found: f"[{SYNONYMS[found[1]]}]", wording)
    while True:
        text, found = _CHOICE.subn(lambda choice: rng.choice(choice[1].split("|")), text)
        if not found:
            break
    for untidy, tidy in (("  ", " "), (" '", "'"), (" .", "."), (" ?", "?"), ("..", "."), ("?.", "?"), ("!.", "!")):
        text = text.replace(untidy, tidy)
    text = text.strip()
    return text if text.startswith("{") else text[:1].upper() + text[1:]


def words_of(wordings: str) -> set[str]:
    """Return the lower-case words that some expansion of the text may contain."""
    text = _SYNONYM.sub(lambda found: f" {SYNONYMS[found[1]]} ", wordings)
    return set(re.findall(r"[a-z']+", re.sub(r"\{\w+\}", " ", text.lower())))
