"""Wordings that settle the team, by team: those of both splits, and those kept apart for measuring."""

from collections.abc import Mapping
from typing import Final

from wonder.embedded.wordings_goods import RETURNS, SALES, SHIPPING
from wonder.embedded.wordings_service import ACCOUNTS, BILLING, TECHNICAL

WORDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": BILLING,
    "shipping": SHIPPING,
    "accounts": ACCOUNTS,
    "technical": TECHNICAL,
    "sales": SALES,
    "returns": RETURNS,
}
"""Wordings of both splits; `grammar.expand` makes sentences of them."""

NEW_WORDINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": (
        "My bank shows [{amount}|a sum] going out to you that I have no paperwork for.",
        "The figures you put on <my> <bill> [don't|do not] add up.",
        "I was promised [{amount}|some money] in compensation for the outage and it is not deducted from what I pay.",
        "Reimburse me for {order}[, please|].",
        "You have helped yourselves to {amount} from my card[ without asking|].",
        "Our tax adviser says that your invoice lacks a date.",
        "[May we|Could we] settle {amount} in [two|three|four] parts?",
        "My wallet is lighter by {amount} because you [took|booked] it [twice|again].",
    ),
    "shipping": (
        "No sign of <my> <parcel> [so far|to this day|whatsoever].",
        "I have been sitting at the window since {day} and no van has stopped with my parcel.",
        "Your courier claims he handed the [{item}|parcel] to me, which is not true.",
        "Could the [{item}|order] go to {city} rather than to my home?",
        "According to the tracking it is still in {city}[ and has been there since {day}|].",
        "The postman brought somebody else's parcel to our house.",
        "By which day can you get [a|the] {item} to {city}?",
        "{Order} ought to have been here by {day}.",
    ),
    "accounts": (
        "I [racked my brain|tried everything] but my password will not come back to me.",
        "Every password I try is turned down.",
        "How do I choose a new password when the old one is gone?",
        "Your sign-in page turns me away[ each time|].",
        "Nobody but me should be able to see my profile, yet someone was signed in from {city}.",
        "{person} left our firm, so her login has to go.",
        "My mail address has changed, so [please|can you] put the new one into my profile.",
        "I would rather not have an account with you any longer.",
    ),
    "technical": (
        "The {item} gave up the ghost[<now>|], the light is off and pressing the button does nothing.",
        "Every time I press save the app throws an error at me.",
        "My {item} and my phone refuse to talk to each other over Bluetooth.",
        "After I installed the new version nothing but a spinning wheel appears on the screen.",
        "The {item} goes off in the middle of work and starts again by itself.",
        "Your software eats my files[ when I save|].",
        "The picture on the {item} is full of stripes.",
        "I followed the set-up step by step and the {item} still shows error {number}.",
    ),
    "sales": (
        "We are after {count} {item}s, what could you do for us on price?",
        "What would I have to pay for {count} of your {item}s?",
        "Convince me: why should I buy the {item} and not the cheaper one?",
        "Would teachers pay less[ for the {item}|]?",
        "I am torn between the two {item}s you sell, which would you take?",
        "Put me on the list for the new {item} as soon as it can be ordered.",
        "Before we sign up we would like to see the product in action.",
        "Our company has outgrown the small plan, what is the next one up?",
    ),
    "returns": (
        "The {item} was a mistake, I want to be rid of it and give it back.",
        "My feet do not fit into them, do you have the next size up in exchange?",
        "I ordered blue and unpacked red, so [please|can you] swap it.",
        "What are the steps for handing back an unused {item}?",
        "The label for the way back is nowhere in the box.",
        "I have thought better of it: how does the {item} get back to you?",
        "Would you take the {item} back even though the box is torn?",
        "It hangs on me like a tent, could I have it in a smaller size?",
    ),
}
"""Wordings that no split uses: for measuring what the model makes of sentences it never saw."""
