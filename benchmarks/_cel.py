"""Random conditions, each spelt twice: in Wonder's language and in CEL; and whether Google's CEL decides them alike.

Only what the two share is generated (see "What is shared with CEL" in `docs/conditions.md`). A value that is unknown to
Wonder is absent for CEL, and an error of CEL's stands for unknown: its `&&`, `||` absorb errors as Kleene's logic does.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_math

from wonder.routing import compiler
from wonder.routing.env import Env
from wonder.routing.parser import parse
from wonder.trace.schema import ThoughtTrace

VALUES = (0.0, 0.25, 0.5, 0.7, 0.75, 1.0)
"""Few, and those that literals have too, so that bounds are met exactly."""
WORLDS_EACH = 5
"""Worlds that each condition is asked about."""
CONCEPTS = ("legal_risk", "fraud", "anger")
WORDS = ("billing", "sales", "a\"b'c", "überraschend", "")
DOUBLES = (
    "thought_trace.overall_confidence",
    'thought_trace["overall_confidence"]',
    *(f"thought_trace.active_concepts.{name}" for name in CONCEPTS),
    'thought_trace.active_concepts["fraud"]',
    "thought_trace.attention_entropy[0]",
    "thought_trace.attention_entropy[2]",
    "state.score",
    'state["two words"]',
)
INTS = ("visits", "state.amount", "thought_trace.prompt_tokens", "state.lines[1]")
TEXTS = ("output", "state.name", "thought_trace.model", "state.tags[0]")
BOOLS = ("state.flag", "state.urgent", "state.deep.flag")
LISTS = (("state.tags", "text"), ("state.lines", "int"), ("thought_trace.attention_entropy", "double"))
COMPARE = ("<", "<=", ">", ">=", "==", "!=")


@dataclass(frozen=True)
class Case:
    """One condition in both spellings, and the worlds it is asked about."""

    ours: str
    theirs: str
    worlds: Sequence["World"]


World = tuple[Env, dict[str, Any]]
"""The values of a condition, for Wonder and for CEL."""

Spelt = tuple[str, str]
"""Ours, CEL's."""


class Writer:
    """Writes well-typed conditions."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def condition(self, depth: int) -> Spelt:
        """A condition of at most this depth."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            return self.atom()
        kind = rng.choice(("and", "or", "not", "and", "or", "if", "atom"))
        if kind == "atom":
            return self.atom()
        a, b = self.condition(depth - 1), self.condition(depth - 1)
        if kind == "not":
            ours = rng.choice((f"not ({a[0]})", f"!({a[0]})"))
            return ours, f"!({a[1]})"
        if kind == "if":
            c = self.condition(depth - 1)
            return f"({b[0]}) if ({a[0]}) else ({c[0]})", f"({a[1]}) ? ({b[1]}) : ({c[1]})"
        word, sign = ("and", "&&") if kind == "and" else ("or", "||")
        parts = [a, b, *([self.condition(depth - 1)] if rng.random() < 0.2 else [])]
        joiner = rng.choice((word, sign))
        return f" {joiner} ".join(f"({p[0]})" for p in parts), f" {sign} ".join(f"({p[1]})" for p in parts)

    def atom(self) -> Spelt:
        """A comparison, a membership, a flag, or whether something is known."""
        rng = self.rng
        kind = rng.choice(
            ("double", "double", "double", "int", "text", "mixed", "chain", "in", "keys", "bool", "known")
        )
        if kind == "bool":
            flag = rng.choice((*BOOLS, "true", "false"))
            return (flag, flag) if rng.random() < 0.7 else (f"{flag} == true", f"{flag} == true")
        if kind == "known":
            path = f"thought_trace.active_concepts.{rng.choice(CONCEPTS)}"
            return f"known({path})", f"has({path})"
        if kind == "keys":
            return self.member(f'"{rng.choice(CONCEPTS)}"', "thought_trace.active_concepts")
        if kind == "in":
            return self.membership()
        if kind == "chain":
            a, b, c = self.double(1), self.double(1), self.double(1)
            first, second = rng.choice(COMPARE), rng.choice(COMPARE)
            links = f"({a[1]} {first} {b[1]}) && ({b[1]} {second} {c[1]})"
            return f"{a[0]} {first} {b[0]} {second} {c[0]}", links
        op = rng.choice(COMPARE)
        if kind == "mixed":
            # Numbers of different types, read from values whose type CEL learns only then.
            sides = [rng.choice((*INTS[1:], *DOUBLES)), rng.choice((*INTS[1:], *DOUBLES, "1", "0.5"))]
            return f"{sides[0]} {op} {sides[1]}", f"{sides[0]} {op} {sides[1]}"
        write: dict[str, Callable[[], Spelt]] = {
            "double": lambda: self.double(2),
            "int": lambda: self.integer(2),
            "text": self.text,
        }
        left, right = write[kind](), write[kind]()
        return f"{left[0]} {op} {right[0]}", f"{left[1]} {op} {right[1]}"

    def membership(self) -> Spelt:
        """`in` a list, read or written out."""
        rng = self.rng
        if rng.random() < 0.5:
            path, kind = rng.choice(LISTS)
            literal = {
                "text": f'"{rng.choice(WORDS[:2])}"',
                "int": str(rng.randint(0, 3)),
                "double": str(rng.choice(VALUES)),
            }
            return self.member(literal[kind], path)
        if rng.random() < 0.5:
            words = ", ".join(self.quoted(rng.choice(WORDS)) for _ in range(rng.randint(1, 3)))
            return self.member(rng.choice(TEXTS), f"[{words}]")
        numbers = ", ".join(str(rng.choice(VALUES)) for _ in range(rng.randint(1, 3)))
        return self.member(rng.choice(DOUBLES), f"[{numbers}]")

    def member(self, item: str, container: str) -> Spelt:
        """`item in container`, or not."""
        if self.rng.random() < 0.25:
            return f"{item} not in {container}", f"!({item} in {container})"
        return f"{item} in {container}", f"{item} in {container}"

    def double(self, depth: int) -> Spelt:
        """A floating-point number."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.5:
            plain = rng.choice(DOUBLES) if rng.random() < 0.7 else str(rng.choice(VALUES))
            return plain, plain
        kind = rng.choice(("+", "-", "*", "/", "minus", "abs", "min", "max", "if"))
        a, b = self.double(depth - 1), self.double(depth - 1)
        if kind == "minus":
            return f"-({a[0]})", f"-({a[1]})"
        if kind == "abs":
            return f"abs({a[0]})", f"math.abs({a[1]})"
        if kind in ("min", "max"):
            name = "math.least" if kind == "min" else "math.greatest"
            return f"{kind}({a[0]}, {b[0]})", f"{name}({a[1]}, {b[1]})"
        if kind == "if":
            test = self.condition(0)
            return f"({a[0]} if {test[0]} else {b[0]})", f"(({test[1]}) ? {a[1]} : {b[1]})"
        if kind == "/":
            b = (divisor := str(rng.choice(VALUES[1:])), divisor)
        return f"({a[0]} {kind} {b[0]})", f"({a[1]} {kind} {b[1]})"

    def integer(self, depth: int) -> Spelt:
        """A whole number."""
        rng = self.rng
        if depth == 0 or rng.random() < 0.5:
            if rng.random() < 0.2:
                path = rng.choice(
                    ("output", "state.tags", "thought_trace.attention_entropy", "thought_trace.active_concepts")
                )
                return f"len({path})", f"size({path})"
            plain = rng.choice(INTS) if rng.random() < 0.7 else str(rng.randint(0, 4))
            return plain, plain
        op = rng.choice("+-*")
        a, b = self.integer(depth - 1), self.integer(depth - 1)
        return f"({a[0]} {op} {b[0]})", f"({a[1]} {op} {b[1]})"

    def text(self) -> Spelt:
        """A string."""
        rng = self.rng
        plain = rng.choice(TEXTS) if rng.random() < 0.6 else self.quoted(rng.choice(WORDS))
        return plain, plain

    def quoted(self, word: str) -> str:
        """A string literal, in either kind of quotes."""
        mark = self.rng.choice("'\"")
        return mark + word.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark


def worlds(rng: random.Random, count: int) -> list[World]:
    """Values to ask about, for Wonder and for CEL; each is missing now and then."""
    return [_world(rng) for _ in range(count)]


def _world(rng: random.Random) -> World:
    def some(**values: Any) -> dict[str, Any]:
        return {key: value for key, value in values.items() if rng.random() < 0.8}

    number: Callable[[], float] = lambda: rng.choice(VALUES)  # noqa: E731 - a name for a draw
    concepts = some(**{name: number() for name in CONCEPTS})
    confidence = some(overall_confidence=number())
    entropy = [number() for _ in range(rng.randint(0, 3))]
    trace = {
        "active_concepts": concepts,
        "attention_entropy": entropy,
        "prompt_tokens": rng.randint(0, 3),
        "model": rng.choice(WORDS),
        **confidence,
    }
    state = {
        **some(score=number(), flag=rng.random() < 0.5, urgent=rng.random() < 0.5, amount=rng.randint(0, 4)),
        **some(name=rng.choice(WORDS), tags=[rng.choice(WORDS) for _ in range(rng.randint(0, 2))]),
        **some(lines=[rng.randint(0, 3) for _ in range(rng.randint(0, 3))], deep=some(flag=True)),
        **some(**{"two words": number()}),
    }
    output, visits = rng.choice(WORDS), rng.randint(1, 4)
    env = Env(ThoughtTrace(action="classify", **trace), output, state, visits)
    return env, {"thought_trace": trace, "state": state, "output": output, "visits": visits}


def cases(seed: int, count: int) -> Iterator[Case]:
    """Pseudo-random conditions, each to be asked about a few worlds; the same for one seed."""
    rng = random.Random(seed)
    writer, known = Writer(rng), worlds(rng, 1000)
    for _ in range(count):
        ours, theirs = writer.condition(rng.choice((0, 1, 1, 2, 2, 3, 4)))
        yield Case(ours, theirs, rng.sample(known, WORLDS_EACH))


class Cel:
    """Google's CEL (the C++ implementation)."""

    def __init__(self) -> None:
        names = ("thought_trace", "state", "output", "visits")
        self.env = cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN), extensions=[ext_math.ExtMath()])

    def decide(self, case: Case) -> list[bool | None]:
        """True, False, or None for an error, in each world."""
        # CEL's checker would have to be told types that it then holds against conditions on numbers of two types.
        compiled = self.env.compile(case.theirs, disable_check=True)
        found = [compiled.eval(data=data) for _, data in case.worlds]
        return [bool(value.value()) if value.type() == cel.Type.BOOL else None for value in found]


def wonder(case: Case) -> list[bool | None]:
    """What Wonder's language says in each world: True, False, or None for unknown."""
    decide = compiler.predicate(parse(case.ours))
    return [decide(env) for env, _ in case.worlds]


@dataclass
class Comparison:
    """How many cases were decided how."""

    cases: int = 0
    unknown: int = 0
    true: int = 0
    disagreements: int = 0
    first: str = ""
    """The first disagreement."""


def compare(seed: int, conditions: int) -> Comparison:
    """Decide cases both ways: every condition in `WORLDS_EACH` worlds."""
    google, found = Cel(), Comparison()
    for case in cases(seed, conditions):
        for mine, theirs, (_, data) in zip(wonder(case), google.decide(case), case.worlds, strict=True):
            found.cases += 1
            found.unknown += mine is None
            found.true += mine is True
            if mine is not theirs:
                found.disagreements += 1
                found.first = found.first or f"{case.ours}\n  Wonder: {mine}; CEL: {theirs} ({case.theirs})\n  {data}"
    return found
