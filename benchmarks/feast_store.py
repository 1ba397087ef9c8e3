"""A customer's value in Feast's online store on PostgreSQL; run by an interpreter that has `feast[postgres]`.

    python benchmarks/feast_store.py FOLDER SOCKET_FOLDER CUSTOMERS

It makes a feature repository in FOLDER with the fields of a stored value, and writes them for as many customers;
`feast serve` serves it. `benchmarks.read_speed --feast` does both.
"""

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pandas as pd
from customer_ids import customer_id
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from feast_fields import COUNTS, NUMBERS, WORDS

YAML = """
project: bench
provider: local
registry: {folder}/registry.db
entity_key_serialization_version: 3
online_store:
    type: postgres
    conn_type: pool
    min_conn: 4
    max_conn: 10
    host: {socket}
    port: 5432
    database: perennial
    db_schema: feast
    user: perennial
    password: none
"""


def main() -> None:
    folder, socket, customers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    (folder / "feature_store.yaml").write_text(YAML.format(folder=folder, socket=socket))
    now = datetime.now(timezone.utc)  # noqa: UP017 - Feast's interpreter may be an older one.
    frame = pd.DataFrame({"customer_id": list(map(customer_id, range(customers))), "event_timestamp": now})
    for place, name in enumerate(NUMBERS):
        frame[name] = frame.index * 1.25 + place
    for place, name in enumerate(COUNTS):
        frame[name] = frame.index % 100 + place
    for name in WORDS:
        frame[name] = f"some_{name}"
    frame.to_parquet(folder / "values.parquet")
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name="value",
        entities=[customer],
        ttl=timedelta(days=365),
        schema=[
            *(Field(name=name, dtype=Float64) for name in NUMBERS),
            *(Field(name=name, dtype=Int64) for name in COUNTS),
            *(Field(name=name, dtype=String) for name in WORDS),
        ],
        source=FileSource(path=str(folder / "values.parquet"), timestamp_field="event_timestamp"),
        online=True,
    )
    store = FeatureStore(repo_path=str(folder))
    store.apply([customer, view])
    store.write_to_online_store("value", frame)


if __name__ == "__main__":
    main()
