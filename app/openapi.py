"""``python -m app.openapi`` writes openapi/openapi.json; ``--check`` fails where it differs from what is served."""

import json
import sys
from pathlib import Path

from app.main import create_app
from app.settings import Settings

DOCUMENT = Path(__file__).resolve().parent.parent / "openapi" / "openapi.json"


def rendered() -> str:
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    if "--check" in sys.argv[1:]:
        if not DOCUMENT.exists() or DOCUMENT.read_text() != rendered():
            sys.exit("openapi/openapi.json differs from what is served: run `make openapi` and commit it.")
        return
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(rendered())


if __name__ == "__main__":
    main()
