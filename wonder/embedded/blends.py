"""How ambiguous tickets are made: sentences that fit several teams, and frames that join the issues of two or three."""

from collections.abc import Mapping
from typing import Final

SHARED_ISSUES: Final[tuple[tuple[str, Mapping[str, float]], ...]] = (
    (
        "I [was charged|paid|have paid] for [a parcel|an order|a {item}] that [never arrived|never came|was never "
        "delivered|did not arrive].",
        {"billing": 0.5, "shipping": 0.5},
    ),
    (
        "I [sent|returned|mailed] [the {item}|it] back and [the money has not come|still have no refund|got no refund|"
        "nobody has paid me back].",
        {"returns": 0.6, "billing": 0.4},
    ),
    (
        "[The|My|Your] {item} [arrived|came|was delivered|got here] [broken|damaged|cracked|in pieces|with a dent].",
        {"returns": 0.6, "shipping": 0.4},
    ),
    (
        "[The|My] {item} [is faulty|broke|does not work] and I [wonder whether to repair or replace it|want a new one|"
        "would like it replaced].",
        {"technical": 0.5, "returns": 0.5},
    ),
    ("My subscription page does not load, so I cannot pay.", {"technical": 0.6, "billing": 0.4}),
    (
        "I [cannot|can't] [see|find|open] my [invoices|bills|receipts] after [signing in|logging in|I log in].",
        {"accounts": 0.5, "billing": 0.5},
    ),
    ("The app throws me out each time I sign in.", {"technical": 0.75, "accounts": 0.25}),
    ("The price I was quoted is not the price on the invoice.", {"billing": 0.6, "sales": 0.4}),
    ("I want to upgrade but the shop does not let me sign in.", {"accounts": 0.75, "sales": 0.25}),
    ("Do you ship the {item} free of charge if we order {count}?", {"sales": 0.75, "shipping": 0.25}),
    ("The wrong [{item}|thing|product] was in the [box|parcel|package].", {"returns": 0.75, "shipping": 0.25}),
    ("My voucher code is refused at the checkout.", {"billing": 1 / 3, "sales": 1 / 3, "technical": 1 / 3}),
    ("{Order} vanished from my profile.", {"accounts": 1 / 3, "shipping": 1 / 3, "technical": 1 / 3}),
    ("The refund for the lost parcel is missing.", {"billing": 1 / 3, "shipping": 1 / 3, "returns": 1 / 3}),
    ("The licence key for the {item} is not accepted.", {"technical": 0.85, "sales": 0.15}),
    ("The reminder names an amount I paid in {month}.", {"billing": 0.85, "accounts": 0.15}),
    ("The parcel came back to you because my address was out of date.", {"shipping": 0.85, "accounts": 0.15}),
    ("The {item} I am sending back has not reached you yet.", {"returns": 0.85, "shipping": 0.15}),
    ("Somebody ordered a {item} with my login.", {"accounts": 0.85, "billing": 0.15}),
    ("Which plan includes the larger {item} set-up?", {"sales": 0.85, "technical": 0.15}),
    (
        "[I want to|Please|I'd like to|How do I|Can I|I need to] [cancel|stop|end|quit|terminate] my "
        "[subscription|membership|plan|contract|monthly plan]<now>.",
        {"billing": 0.5, "accounts": 0.5},
    ),
    (
        "[I want to|Please|I'd like to|How do I|Can I|Can you] [cancel|stop|call off] "
        "[my order|{order}|the order]<now>.",
        {"shipping": 0.5, "returns": 0.5},
    ),
)
"""One sentence (to expand, see `grammar`) and the share of such tickets that each team gets in the end."""

FRAMES: Final[tuple[tuple[str, tuple[float, ...]], ...]] = (
    ("I have two problems. {a} {b}", (0.5, 0.5)),
    ("{a} Just as important: {b}", (0.5, 0.5)),
    ("Two things, and I cannot say which matters more. {a} {b}", (0.5, 0.5)),
    ("{a} Besides that: {b}", (0.6, 0.4)),
    ("{a} And then there is this: {b}", (0.6, 0.4)),
    ("{a} In addition: {b}", (0.6, 0.4)),
    ("My main concern first. {a} There is a smaller one too: {b}", (0.75, 0.25)),
    ("{b} That is the small problem, here is the big one: {a}", (0.75, 0.25)),
    ("{a} By the way: {b}", (0.75, 0.25)),
    ("{a} P.S. {b}", (0.85, 0.15)),
    ("{a} A tiny side note: {b}", (0.85, 0.15)),
    ("Three things at once. {a} {b} {c}", (1 / 3, 1 / 3, 1 / 3)),
    ("{a} {b} {c} All three are equally annoying.", (1 / 3, 1 / 3, 1 / 3)),
)
"""A frame around issues `a`, `b` (and `c`) of different teams, and their shares in that order."""
