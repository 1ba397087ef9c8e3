"""Lifetime value by the predictive models, through HTTP, on the CDNOW sample that the lifetimes package ships."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Client, event, order
from tests.test_runs import computed, run

__all__ = ["computed"]

CALIBRATION_END = "1997-09-30T23:59:59Z"  # 39 weeks
WEEK_DAYS = 7


def cdnow_orders() -> list[dict[str, Any]]:
    package = find_spec("lifetimes")  # only its data: importing it would import pandas' deprecated options
    assert package is not None
    path = Path(str(package.origin)).parent / "datasets" / "CDNOW_sample.txt"
    orders = []
    for number, line in enumerate(path.read_text().splitlines()):
        _, customer, day, _, amount = line.split()
        moment = f"{day[:4]}-{day[4:6]}-{day[6:]}T12:00:00Z"
        orders.append(order(f"o-{number}", amount, moment, customer_id=customer, id=f"e-{number}"))
    return orders


@pytest.fixture
async def cdnow(client: Client) -> Client:
    receipt = await client.record(*cdnow_orders())
    assert (receipt["accepted"], receipt["rejected"]) == (6919, 0)
    return client


async def test_a_run_reproduces_the_published_parameters_of_cdnow(cdnow: Client, engine: AsyncEngine) -> None:
    done = await run(cdnow, engine, as_of=CALIBRATION_END, settings={"clv": {"model": "bg_nbd"}})
    fitted = done["fitted"]["clv"]
    params = fitted["params"]
    # Fader, Hardie and Lee (2005), in weeks; and the Gamma-Gamma of Fader and Hardie (2013).
    assert params["r"] == pytest.approx(0.243, abs=5e-4)
    assert params["alpha"] == pytest.approx(4.414 * WEEK_DAYS, abs=5e-3)
    assert (params["a"], params["b"]) == (pytest.approx(0.793, abs=5e-4), pytest.approx(2.426, abs=5e-4))
    assert fitted["gamma_gamma"] == {
        "p": pytest.approx(6.25, abs=5e-3),
        "q": pytest.approx(3.74, abs=5e-3),
        "v": pytest.approx(15.44, abs=5e-3),
    }
    assert fitted["calibration"]["holdout_days"] > 90
    value = await cdnow.get("/v1/customers/0001/value", as_of=CALIBRATION_END, horizon_days=39 * WEEK_DAYS)
    # The first customer of Hardie's sheet: 1.226 purchases expected in the next 39 weeks.
    assert value["clv"]["expected_purchases"] == pytest.approx(1.226, abs=2e-3)
    assert value["clv"]["method"] == "bg_nbd"


async def test_the_contest_serves_the_same_number_live_and_stored(
    cdnow: Client, engine: AsyncEngine, computed: bool
) -> None:
    done = await run(cdnow, engine, as_of=CALIBRATION_END)
    fitted = done["fitted"]["clv"]
    assert fitted["contest"]["winner"] == fitted["model"]
    assert {entry["model"] for entry in fitted["contest"]["entries"]} >= {"bg_nbd", "mbg_nbd", "pareto_nbd"}
    page = await cdnow.get("/v1/values", sort="-clv_total", limit=500)
    ids = [value["customer_id"] for value in page["data"]]
    live = await cdnow.http.post("/v1/values/query", json={"customer_ids": ids, "as_of": CALIBRATION_END})
    assert live.json()["data"] == [{**value, "source": "live"} for value in page["data"]]
    alone = await cdnow.get(f"/v1/customers/{ids[0]}/value", as_of=CALIBRATION_END)
    assert alone == {**page["data"][0], "source": "live"}
    clv = next(value["clv"] for value in page["data"] if value["clv"]["p_alive"] > 0.9)
    assert float(clv["interval"]["low"]) <= float(clv["predicted"]) <= float(clv["interval"]["high"])
    assert float(clv["total"]) == pytest.approx(float(clv["historical"]) + float(clv["predicted"]))
    # The method "auto" goes by probability where a predictive model was fitted.
    for value in page["data"]:
        probability = value["churn"]["probability"]
        expected = "churned" if probability >= 0.9 else "at_risk" if probability >= 0.5 else "active"
        assert value["churn"]["state"] == expected


async def test_the_horizon_of_a_query_moves_the_prediction_but_never_the_state(
    cdnow: Client, engine: AsyncEngine
) -> None:
    await run(cdnow, engine, as_of=CALIBRATION_END, settings={"clv": {"model": "bg_nbd"}})
    path = "/v1/customers/0001/value"
    near, far = [await cdnow.get(path, as_of=CALIBRATION_END, horizon_days=days) for days in (30, 730)]
    assert float(near["clv"]["predicted"]) < float(far["clv"]["predicted"])
    assert near["churn"] == far["churn"]


async def test_too_few_customers_fall_back_to_the_textbook_and_say_why(client: Client, engine: AsyncEngine) -> None:
    await client.record(*(order(f"o-{n}", occurred_at=f"2025-0{1 + n % 9}-03T10:00:00Z") for n in range(20)))
    done = await run(client, engine)
    assert (done["fitted"]["clv"]["model"], done["status"]) == ("textbook", "succeeded")
    clv = await client.get("/v1/customers/c-1/clv", as_of="2026-01-01T00:00:00Z")
    assert (clv["method"], clv["fallback_reason"]) == ("textbook", "too_few_customers")
    assert clv["predicted"] is not None


async def test_margins_below_zero_are_valued_and_bounded(client: Client, engine: AsyncEngine) -> None:
    events = cdnow_orders()[:3000]
    for placed in events:
        loses = int(placed["customer_id"]) % 3 == 0
        placed["data"]["cost"] = str(round(float(placed["data"]["amount"]) * (1.5 if loses else 0.4), 2))
    await client.record(*events, event("customer.created", "nobody"))
    settings = {"clv": {"basis": "margin", "model": "pareto_nbd"}}
    done = await run(client, engine, as_of=CALIBRATION_END, settings=settings)
    fitted = done["fitted"]["clv"]
    assert (fitted["model"], fitted["spend"]["reason"]) == ("pareto_nbd", "negative_margin")
    values = (await client.get("/v1/values", limit=1000))["data"]
    buyers = [value for value in values if value["clv"]["p_alive"] is not None]
    assert len(values) - len(buyers) == 0  # the prospect came after the run's moment
    losing = [value["clv"] for value in buyers if float(value["clv"]["expected_purchase_value"]) < 0]
    assert 0 < len(losing) < len(buyers)
    for clv in losing:
        assert float(clv["historical"]) < 0
        assert float(clv["interval"]["low"]) <= float(clv["interval"]["high"]) <= 0


async def test_an_explanation_tells_what_drove_the_predicted_value(cdnow: Client, engine: AsyncEngine) -> None:
    await run(cdnow, engine, as_of=CALIBRATION_END, settings={"clv": {"model": "bg_nbd"}})
    page = await cdnow.get("/v1/values", sort="churn_probability", limit=1)
    keen = page["data"][0]["customer_id"]
    value = await cdnow.get(f"/v1/customers/{keen}/value", source="cached", explain="true")
    predicted = float(value["clv"]["predicted"])
    driven = {driver["name"]: driver for driver in value["explanation"]["clv"]["drivers"]}
    assert set(driven) == {"frequency", "days_since_last_order", "T_days", "monetary_value"}
    # This customer bought more often, and lately: with the figures of the middle they would be worth less.
    frequency, silence = driven["frequency"], driven["days_since_last_order"]
    assert frequency["figure"] > frequency["population_median"]
    assert float(frequency["predicted_at_median"]) < predicted
    assert silence["figure"] < silence["population_median"]
    if silence["predicted_at_median"] is not None:
        assert float(silence["predicted_at_median"]) < predicted
