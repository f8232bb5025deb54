"""`wonder claims`: measure a claim on examples whose truth is known."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from wonder.claims.claim import Claim
from wonder.claims.validation import ClaimValidation, validate
from wonder.errors import DefinitionError, RequestError
from wonder.trace.schema import ThoughtTrace


class Example(BaseModel):
    """One line of the examples."""

    trace: ThoughtTrace
    holds: bool


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:  # noqa: ARG001
    """Add `claims`."""
    claims = commands.add_parser("claims", help="measure a claim on traces whose truth is known")
    verbs = claims.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser("validate", help="the rates and the AUROC of a claim on one model, as a record to ship")
    check.add_argument("claim", type=Path, help="the claim as JSON: name, text, supported_when, refuted_when, score")
    check.add_argument(
        "--examples", type=Path, required=True, help='JSON lines {"trace": {…}, "holds": true}, of one model'
    )
    check.add_argument("--dataset", help="what the examples are, for the record; default: the file's name")
    check.add_argument("--write", action="store_true", help="add the record to the claim's file")
    check.set_defaults(handler=run_validate, needs_client=False)


async def run_validate(arguments: argparse.Namespace) -> int:
    """Measure, print, and say whether the claim may decide; exit code 1 if not."""
    claim = _claim(arguments.claim)
    found = validate(claim, _examples(arguments.examples), arguments.dataset or arguments.examples.name)
    others = [record for record in claim.validations if record.model_fingerprint != found.model_fingerprint]
    claim = claim.model_copy(update={"validations": [*others, found]})
    if arguments.write:
        arguments.claim.write_text(claim.model_dump_json(indent=2, exclude_none=True) + "\n")
    allowed, reason = claim.validation_for(found.model_fingerprint, found.model)
    sys.stdout.write(_report(claim, found))
    sys.stdout.write(f"may decide: {'yes' if allowed else 'no, ' + reason}\n")
    return 0 if allowed else 1


def _report(claim: Claim, found: ClaimValidation) -> str:
    lines = [
        f"{claim.name}: {claim.text}",
        f"on {found.model} ({found.model_fingerprint[:12]}), {found.dataset}",
        "",
        f"{'':22}supported  refuted  neither",
        _line(f"holds ({found.positives})", found.support, found.false_refutation),
        _line(f"does not ({found.negatives})", found.false_support, found.refutation),
        "",
    ]
    if found.auroc is not None:
        lines.append(f"AUROC of {claim.score}: {found.auroc:.3f} ({found.auroc_low:.3f} to {found.auroc_high:.3f})")
    return "\n".join(lines) + "\n"


def _line(title: str, supported: float, refuted: float) -> str:
    return f"{title:22}{supported:9.1%}  {refuted:7.1%}  {1 - supported - refuted:7.1%}"


def _claim(path: Path) -> Claim:
    try:
        return Claim.model_validate(json.loads(path.read_text()))
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, ValidationError, TypeError) as error:
        raise DefinitionError(
            f"{path} is not a claim ({error}): write name, text and supported_when as JSON"
        ) from error


def _examples(path: Path) -> list[tuple[ThoughtTrace, bool]]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            example = Example.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            told = f"{path}, line {number}: {place or 'the line'}: {first['msg']}"
            raise RequestError(f'{told}; each line is {{"trace": {{…}}, "holds": true}}') from error
        found.append((example.trace, example.holds))
    return found
