"""What customers are worth: one, a list, or those asked for."""

import re
from collections.abc import Coroutine
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app import live, stored_values
from app.api.cursors import decode_cursor, encode_cursor, invalid_cursor
from app.api.dependencies import (
    LONGEST_LANGUAGES,
    AcceptedLanguage,
    Cursor,
    CustomerId,
    Engine,
    Limit,
    ScoresReader,
    bounded,
    preferred_language,
    read_for_holder,
)
from app.api.problems import responses
from app.api.routes import make_router
from app.api.shortcuts import Shortcut
from app.errors import InvalidRequest
from app.fits import Fits
from app.scalars import Id, Instant, SignedMoney
from app.store.score_classes import SORTS
from app.store.score_lists import ScoreFilter
from app.store.workspaces import KeyHolder
from app.value import Abc, Churn, Clv, Rfm, Value

MOST_IDS = 1_000


_PLAIN_QUERIES = {b"": "live", b"source=live": "live", b"source=cached": "cached"}
_PLAIN_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_TOLD: dict[str, TypeAdapter[Any]] = {
    "value": TypeAdapter(Value),
    "rfm": TypeAdapter(Rfm),
    "abc": TypeAdapter(Abc),
    "clv": TypeAdapter(Clv),
    "churn": TypeAdapter(Churn),
}


def _shortcut(part: str) -> Shortcut:
    """For requests with nothing in them to look at: an id, a query and a language that can't be wrong."""
    told = _TOLD[part]

    async def endpoint(request: Request) -> Response | None:
        customer_id = request.path_params["customer_id"]
        languages = request.headers.get("accept-language", "")
        if not _PLAIN_ID.fullmatch(customer_id) or len(languages) > LONGEST_LANGUAGES:
            return None
        state, language = request.app.state, preferred_language(languages)
        is_live = _PLAIN_QUERIES[request.scope["query_string"]] == "live"
        read = live.live_value if is_live else stored_values.cached_value

        def of(holder: KeyHolder) -> Coroutine[Any, Any, Value]:
            return read(state.engine, state.fits, holder.workspace, customer_id, language=language)

        value = await read_for_holder(request, "scores:read", of)
        content = told.dump_json(value if part == "value" else getattr(value, part))
        return Response(content, media_type="application/json", headers={"Vary": "Accept-Language"})

    path = f"/v1/customers/{{customer_id}}/{part}"
    return Shortcut("GET", path, endpoint, queries=_PLAIN_QUERIES.keys(), shares_reads=True)


SHORTCUTS = tuple(map(_shortcut, _TOLD))
router = make_router("values")


async def _fits(request: Request) -> Fits:
    fits: Fits = request.app.state.fits
    return fits


FitCache = Annotated[Fits, Depends(_fits)]

HorizonDays = Annotated[int, Field(ge=1, le=36_500)]


class Moment(BaseModel):
    """The moment, the source and the horizon of a value."""

    model_config = ConfigDict(extra="ignore")

    source: Annotated[
        Literal["live", "cached"], Field(description="`live` from the events, or `cached` as the run stored it.")
    ] = "live"
    as_of: Annotated[Instant | None, Field(description="The moment to speak of; now, if left out. Live only.")] = None
    horizon_days: Annotated[HorizonDays | None, Field(description="How far `predicted` looks ahead. Live only.")] = None
    run_id: Annotated[Id | None, Field(description="The run to stand on; the latest, if left out.")] = None


class ExplainedMoment(Moment):
    """The same, and whether to say why."""

    explain: Annotated[
        bool, Field(description="Tell why each part is what it is, and how far the next better one is.")
    ] = False


async def _value(
    holder: ScoresReader,
    engine: Engine,
    fits: FitCache,
    customer_id: CustomerId,
    moment: Annotated[Moment, Query()],
    language: AcceptedLanguage,
) -> Value:
    return await _read_value(holder, engine, fits, customer_id, moment, language, explain=False)


async def _explained_value(
    holder: ScoresReader,
    engine: Engine,
    fits: FitCache,
    customer_id: CustomerId,
    moment: Annotated[ExplainedMoment, Query()],
    language: AcceptedLanguage,
) -> Value:
    return await _read_value(holder, engine, fits, customer_id, moment, language, explain=moment.explain)


async def _read_value(
    holder: ScoresReader,
    engine: Engine,
    fits: Fits,
    customer_id: str,
    moment: Moment,
    language: AcceptedLanguage,
    *,
    explain: bool,
) -> Value:
    if moment.source == "live":
        question: dict[str, Any] = {"horizon_days": moment.horizon_days, "run_name": moment.run_id}
        question["language"] = language
        as_of = bounded(moment.as_of)
        if explain:
            as_of = as_of or datetime.now(UTC)
            return await live.explained_live_value(engine, fits, holder.workspace, customer_id, as_of, **question)
        return await live.live_value(engine, fits, holder.workspace, customer_id, as_of, **question)
    for name in ("as_of", "horizon_days"):
        if getattr(moment, name) is not None:
            raise InvalidRequest(
                f"{name} needs source=live: a stored value is of its run's moment and horizon.", pointer=name
            )
    return await stored_values.cached_value(
        engine, fits, holder.workspace, customer_id, moment.run_id, language, explain=explain
    )


CustomerValue = Annotated[Value, Depends(_value)]
_RESPONSES = responses(404, 409, 410)


@router.get(
    "/v1/customers/{customer_id}/value",
    summary="What a customer is worth",
    response_model=Value,
    responses=_RESPONSES,
)
async def get_customer_value(value: Annotated[Value, Depends(_explained_value)]) -> Value:
    """Everything at one moment."""
    return value


@router.get("/v1/customers/{customer_id}/rfm", summary="A customer's RFM", response_model=Rfm, responses=_RESPONSES)
async def get_customer_rfm(value: CustomerValue) -> Rfm:
    return value.rfm


@router.get(
    "/v1/customers/{customer_id}/abc", summary="A customer's ABC grade", response_model=Abc, responses=_RESPONSES
)
async def get_customer_abc(value: CustomerValue) -> Abc:
    return value.abc


@router.get(
    "/v1/customers/{customer_id}/clv",
    summary="A customer's lifetime value",
    response_model=Clv,
    responses=_RESPONSES,
)
async def get_customer_clv(value: CustomerValue) -> Clv:
    return value.clv


@router.get(
    "/v1/customers/{customer_id}/churn",
    summary="Whether and why a customer leaves",
    response_model=Churn,
    responses=_RESPONSES,
)
async def get_customer_churn(value: CustomerValue) -> Churn:
    return value.churn


class ValuePage(BaseModel):
    """Values of one run."""

    data: list[Value]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]
    run_id: Annotated[str, Field(examples=["run_5f0c2a9b"])]
    as_of: Instant


class ValueQuery(BaseModel):
    """Whose values, and of which moment."""

    model_config = ConfigDict(extra="forbid")

    customer_ids: Annotated[list[Id], Field(max_length=MOST_IDS, examples=[["c-42", "c-43"]])]
    as_of: Instant | None = None
    horizon_days: HorizonDays | None = None


class ValueAnswer(BaseModel):
    data: Annotated[list[Value], Field(description="In the order asked for, each customer once.")]
    not_found: Annotated[list[str], Field(description="Ids that no customer has.")]


@router.post(
    "/v1/values/query",
    summary="Live values of given customers",
    response_model=ValueAnswer,
    responses=responses(400, 413),
)
async def query_values(
    holder: ScoresReader, engine: Engine, fits: FitCache, body: ValueQuery, language: AcceptedLanguage
) -> ValueAnswer:
    """Up to 1,000 customers at once."""
    found = await live.live_values(
        engine,
        fits,
        holder.workspace,
        body.customer_ids,
        bounded(body.as_of) or datetime.now(UTC),
        horizon_days=body.horizon_days,
        language=language,
    )
    return ValueAnswer.model_construct(data=found.values, not_found=found.not_found)


_EQUAL = {
    "segment": "segment",
    "abc": "abc_grade",
    "churn_state": "churn_state",
    "churn_type": "churn_type",
    "lifecycle_status": "lifecycle_status",
}


class ValueFilter(BaseModel):
    """Which values, in which order."""

    segment: Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$", examples=["champions"])] = ""
    abc: Annotated[str, Field(pattern=r"^[ABC]?$", examples=["A"])] = ""
    churn_state: Annotated[str, Field(max_length=100, pattern=r"^[a-z_]*$", examples=["at_risk"])] = ""
    churn_type: Annotated[str, Field(max_length=100, pattern=r"^[a-z_]*$", examples=["negligent"])] = ""
    lifecycle_status: Annotated[str, Field(max_length=100, pattern=r"^[a-z_]*$", examples=["active"])] = ""
    clv_total_min: SignedMoney | None = None
    clv_total_max: SignedMoney | None = None
    net_spend_min: SignedMoney | None = None
    net_spend_max: SignedMoney | None = None
    sort: Annotated[
        str,
        Field(
            pattern=f"^-?({'|'.join(SORTS)})$",
            description=f"One of {', '.join(SORTS)}; with `-` before it, falling. Nulls come last.",
            examples=["-clv_total"],
        ),
    ] = "customer_id"

    def conditions(self) -> ScoreFilter:
        return ScoreFilter(
            equal={column: getattr(self, name) for name, column in _EQUAL.items() if getattr(self, name)},
            at_least=_given(clv_total=self.clv_total_min, net_spend=self.net_spend_min),
            at_most=_given(clv_total=self.clv_total_max, net_spend=self.net_spend_max),
        )


class ValueListQuery(ValueFilter):
    limit: Limit = 100
    cursor: Cursor = ""


def _given(**amounts: Decimal | None) -> dict[str, Decimal]:
    return {name: amount for name, amount in amounts.items() if amount is not None}


@router.get(
    "/v1/values",
    summary="Values of all customers",
    response_model=ValuePage,
    responses=responses(409, 410),
)
async def list_values(
    holder: ScoresReader,
    engine: Engine,
    fits: FitCache,
    query: Annotated[ValueListQuery, Query()],
    language: AcceptedLanguage,
) -> ValuePage:
    """From the last run, filtered and sorted. A cursor stays with its run; 410 when that is no longer kept."""
    bound = query.model_dump(mode="json", exclude={"cursor", "limit"})
    column, falling = query.sort.removeprefix("-"), query.sort.startswith("-")
    run_name, after = None, None
    if query.cursor:
        run_name, position, customer_id = decode_cursor("values", bound, query.cursor, str, object, str)
        after = (_position(column, position), customer_id)
    page = await stored_values.list_values(
        engine,
        fits,
        holder.workspace,
        query.conditions(),
        sort=column,
        falling=falling,
        after=after,
        limit=query.limit + 1,
        run_name=run_name,
        language=language,
    )
    values = page.values[: query.limit]
    next_cursor = None
    if len(page.values) > query.limit:
        last = values[-1]
        next_cursor = encode_cursor("values", bound, [page.run_id, _sort_key(column, last), last.customer_id])
    return ValuePage.model_construct(data=values, next_cursor=next_cursor, run_id=page.run_id, as_of=page.as_of)


def _sort_key(column: str, value: Value) -> str | int | float | None:
    """The last row's key as a cursor holds it: exact decimals as text."""
    keys: dict[str, Any] = {
        "customer_id": None,
        "net_spend": str(value.rfm.net_spend),
        "days_since_last_order": value.rfm.days_since_last_order,
        "order_count": value.rfm.order_count,
        "clv_total": None if value.clv.total is None else str(value.clv.total),
        "churn_probability": value.churn.probability,
    }
    key: str | int | float | None = keys[column]
    return key


def _position(column: str, position: Any) -> Any:
    """A cursor's key as the query compares it. Raises ``InvalidRequest`` where it is none."""
    if column == "customer_id" or position is None:
        return None
    if column in ("net_spend", "clv_total"):
        if isinstance(position, str) and re.fullmatch(r"-?[0-9]{1,25}(\.[0-9]{1,10})?", position):
            return Decimal(position)
    elif column == "churn_probability":
        if isinstance(position, float | int) and 0 <= position <= 1:
            return float(position)
    elif isinstance(position, int) and abs(position) < 2**31:
        return position
    raise invalid_cursor()
