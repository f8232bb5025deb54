"""A transition table as a Mermaid flowchart."""

from wonder.routing.transition import TableSpec


def flowchart(spec: TableSpec) -> str:
    """Actions as boxes, ends as rounded ones, conditions on the arrows; dotted arrows are taken on unknown."""
    sources = list(dict.fromkeys(row.from_ for row in spec.rows))
    names = list(dict.fromkeys([*sources, *(target for row in spec.rows for target in row.targets)]))
    ways = [(row.from_, row.on_unknown or spec.on_unknown) for row in spec.rows]
    unknown = list(dict.fromkeys(ways))
    names += [target for target in dict.fromkeys(target for _, target in unknown) if target not in names]
    ids = {name: f"n{at}" for at, name in enumerate(names)}
    lines = ["flowchart TD"]
    for name in names:
        left, right = ("[", "]") if name in sources else ("([", "])")
        lines.append(f'    {ids[name]}{left}"{_quoted(name)}"{right}')
    for row in spec.rows:
        said = [" or ".join(row.on_error or ()), " ".join(row.condition.split())]
        label, stroke = " and ".join(part for part in said if part), "-.->" if row.on_error else "-->"
        for number, rung in enumerate(row.escalate_to, start=1):
            again = f"{label}: {number}. with {rung}"
            lines.append(f'    {ids[row.from_]} {stroke}|"{_quoted(again)}"| {ids[row.from_]}')
        if row.join is not None:
            label += f" ({row.join.needed(len(row.targets))} of {len(row.targets)} must reach {row.join.at})"
        lines += [f'    {ids[row.from_]} {stroke}|"{_quoted(label)}"| {ids[target]}' for target in row.targets]
    lines += [f'    {ids[source]} -.->|"unknown"| {ids[target]}' for source, target in unknown]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside Mermaid's quotes, where `#…;` are the escapes."""
    for char, escape in (("#", "#35;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;")):
        text = text.replace(char, escape)
    return text
