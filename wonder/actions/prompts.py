"""Prompt templates: `"Ticket: {text}"`, filled in by name, checked when the action is defined."""

import string
from collections.abc import Mapping
from functools import lru_cache

from wonder.errors import PromptError


@lru_cache(maxsize=1024)
def variables(template: str) -> frozenset[str]:
    """The names a template needs.

    Raises:
        PromptError: The braces do not match, or a placeholder is more than a plain name.
    """
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise PromptError(
            f"prompt template {template!r} is malformed ({error}): write {{{{ for a literal brace"
        ) from None
    names = set()
    for name, spec, conversion in fields:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise PromptError(
                f"prompt template has the placeholder {{{name}{'!' + conversion if conversion else ''}"
                f"{':' + spec if spec else ''}}}: only plain names such as {{text}} are allowed; "
                "compute the value in the workflow, and write {{ for a literal brace"
            )
        names.add(name)
    return frozenset(names)


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill a template in.

    Raises:
        PromptError: A variable is missing, or one was given that the template does not have.
    """
    needed = variables(template)
    if missing := sorted(needed - set(values)):
        raise PromptError(
            f"the prompt needs {', '.join(missing)}, which {'was' if len(missing) == 1 else 'were'} not given: "
            f"call act(ctx, action, {', '.join(f'{name}=…' for name in sorted(needed))})"
        )
    if unused := sorted(set(values) - needed):
        raise PromptError(
            f"the prompt has no variable {', '.join(unused)}; it has {', '.join(sorted(needed)) or 'none'}: "
            "remove the argument, or use it in the template"
        )
    return template.format_map({name: str(value) for name, value in values.items()})
