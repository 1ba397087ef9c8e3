"""The README says what the code says."""

import re
from pathlib import Path

from pydantic_core import PydanticUndefined

from app.main import create_app
from app.settings import Settings, variable_names

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def settings_table() -> str:
    """The table of settings as the code has them."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for variable, field in zip(variable_names(), Settings.model_fields.values(), strict=True):
        default = "" if field.default in (None, PydanticUndefined) else f"`{field.default}`"
        rows.append(f"| `{variable}` | {default} | {field.description} |")
    return "\n".join(rows)


def test_the_readme_lists_every_setting() -> None:
    told = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README, re.S)
    assert told is not None
    assert told[1] == settings_table(), f"README.md should say:\n{settings_table()}"


def test_every_path_that_the_readme_names_is_served() -> None:
    served = set(create_app(Settings()).openapi()["paths"])
    named = {
        path.rstrip("/") for path in re.findall(r"`(?:GET|POST|PATCH|DELETE)?,? ?(?:POST )?(/v1/[a-z{}_/-]+)`", README)
    }
    assert named
    assert {path for path in named if not any(one.startswith(path) for one in served)} == set()


def test_every_page_that_the_readme_links_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
