"""Acknowledged is durable: kill -9 of every part, and PostgreSQL stopped at once, while events come in."""

import signal

from app.embedded.folder import temporary_folder
from tests.crash_ledger import survive
from torture.findings import Finding, Scale, kept_as_far
from torture.mutants import settings_for

PROMISE = "acknowledged is durable"
KILLS = 200
STOPS = 100
SMALL = 3


async def killed(scale: Scale, mutant: str | None = None) -> Finding:
    kills = SMALL if scale.small else KILLS
    return await _survive("kill −9 of web, worker and launcher in turn", kills, ("web", "worker", "launcher"),
                          signal.SIGKILL, 300 if scale.small else 20_000, scale, mutant)  # fmt: skip


async def stopped(scale: Scale, mutant: str | None = None) -> Finding:
    stops = SMALL if scale.small else STOPS
    return await _survive("immediate stop of PostgreSQL", stops, ("postgres",),
                          signal.SIGQUIT, 300 if scale.small else 10_000, scale, mutant)  # fmt: skip


async def _survive(
    what: str,
    kills: int,
    victims: tuple[str, ...],
    number: signal.Signals,
    enough: int,
    scale: Scale,
    mutant: str | None,
) -> Finding:
    with temporary_folder() as folder:
        ledger = await survive(kills, folder, victims=victims, number=number, settings=settings_for(mutant),
                               seconds=scale.seconds)  # fmt: skip
    return Finding(
        PROMISE,
        f"{what} mid-ingest, {sum(ledger.kills.values())} times of {kills}"
        "; the client's ledger compared after each start",
        f"{len(ledger.acknowledged):,} acknowledged, {ledger.lost} lost, {ledger.doubled} doubled,"
        f" {ledger.inexact} summaries inexact; of batches whose answer was lost, {ledger.stored_unacknowledged:,}"
        " events were stored, all known again when resent",
        f"0 lost, 0 doubled, 0 inexact of ≥ {enough:,}",
        kept_as_far(ledger.is_exact, sum(ledger.kills.values()) == kills and len(ledger.acknowledged) >= enough),
    )
