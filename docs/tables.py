"""The tables of measures, from the registers of the package: `python docs/tables.py` writes them into measures.md."""

import inspect
from pathlib import Path

from transferscope import similarity, transferability

PAGE = Path(__file__).parent / "measures.md"


def measures_table() -> str:
    """Return a Markdown table with a row for each similarity measure."""
    rows = [["name", "definition", "range", "invariances", "cost", "paper"], ["---"] * 6]
    for each in similarity.MEASURES.values():
        rows.append([f"`{each.name}`", each.definition, each.range, each.invariances, each.cost, each.paper])
    return _markdown(rows)


def scores_table() -> str:
    """Return a Markdown table with a row for each transferability score."""
    rows = [["name", "definition", "range", "needs, beside labels", "cost", "paper"], ["---"] * 6]
    for score in transferability.SCORES.values():
        definition = (inspect.getdoc(score.function) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        needs = score.needs.replace("_", " ")
        rows.append([f"`{score.name}`", definition, score.range, needs, score.cost, score.paper])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES = {"measures": measures_table, "scores": scores_table}


def current(page: str) -> str:
    """Return the text of a page with its tables as they are now."""
    for name, table in TABLES.items():
        before, rest = page.split(f"<!-- {name} -->\n")
        after = rest.split(f"<!-- /{name} -->")[1]
        page = f"{before}<!-- {name} -->\n\n{table()}\n\n<!-- /{name} -->{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
