"""A backup is worth what comes back: dump and restore, and a base backup with the log since, by documented commands."""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg

from app.embedded.binaries import programs_for
from app.embedded.folder import account_for, temporary_folder
from app.migrate import bootstrap, migrate
from torture.findings import Finding, Scale
from torture.service import KEY, OwnDatabase, WebProcess, client, own_database, until_ready
from torture.whole_batches import batch

PROMISE = "backup"

WITHOUT_THE_LOG = "without_the_log"


async def checksums(url: str) -> dict[str, str]:
    """Of every table: all its rows as text, in their order."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        found = {}
        for (table,) in tables:
            found[table] = await connection.fetchval(
                f"SELECT md5(coalesce(string_agg(row, chr(10) ORDER BY row), '')) || ' of ' || count(*)"
                f' FROM (SELECT CAST(t AS text) COLLATE "C" AS row FROM "{table}" AS t) AS rows'
            )
        return found
    finally:
        await connection.close()


def _run(account: Any, *command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/",
        **account.popen_options(),
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {done.stdout.decode()[-2000:]}")


async def restored(scale: Scale, mutant: str | None = None) -> list[Finding]:
    if mutant not in (None, WITHOUT_THE_LOG):
        raise SystemExit(f"The only mutant of backups is {WITHOUT_THE_LOG!r}.")
    batches = 5 if scale.small else 100
    account = account_for()
    with temporary_folder() as folder:
        kept = folder / "kept"
        archive = kept / "wal"
        for one in (kept, archive):
            one.mkdir()
            if account.popen_options():
                shutil.chown(one, account.uid, account.gid)
        settings = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f", "archive_timeout": "60"}
        with own_database(folder, **settings) as database:
            await migrate(database.url)
            await bootstrap(database.url, KEY, "USD")
            programs = programs_for(account, folder / "database")
            web = WebProcess(database.url)
            try:
                async with client(web.url) as http:
                    await until_ready(http)

                    async def write(numbers: range) -> None:
                        for number in numbers:
                            (await http.post("/v1/events", json={"events": batch(number)})).raise_for_status()

                    await write(range(batches))
                    writing = asyncio.create_task(write(range(1_000, 1_000 + batches)))
                    await asyncio.to_thread(_run, account, programs / "pg_basebackup", "-d", database.url,
                                            "-D", kept / "base", "-X", "none", "-c", "fast")  # fmt: skip
                    await writing
                    # After the backup: only the log has it.
                    await write(range(2_000, 2_000 + batches))
            finally:
                web.end()
            await asyncio.to_thread(_run, account, programs / "pg_dump", "-d", database.url, "-Fc", "-f", kept / "dump")
            before = await checksums(database.url)
            await database.fetch("SELECT pg_switch_wal()")
            await _until_archived(database)
        dumped = await _restore_dump(folder, kept / "dump", programs, account)
        from_log = await _restore_base(folder, kept, archive, mutant)
    total = sum(int(told.split(" of ")[1]) for told in before.values())

    def finding(how: str, after: dict[str, str]) -> Finding:
        differ = [table for table in before.keys() | after.keys() if before.get(table) != after.get(table)]
        return Finding(
            PROMISE, how,
            f"{len(before)} tables, {total:,} rows; checksums differ of {len(differ)}{': ' if differ else ''}"
            f"{', '.join(sorted(differ))}",
            "checksums of all tables equal", not differ,
        )  # fmt: skip

    return [
        finding("`pg_dump -Fc`, `pg_restore` into an empty server", dumped),
        finding("`pg_basebackup` while events come in, restored with the archived log since", from_log),
    ]


async def _until_archived(database: OwnDatabase) -> None:
    for _ in range(1_000):
        (row,) = await database.fetch(
            "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver"
        )
        if row[0]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the log was not archived")


async def _restore_dump(folder: Path, dump: Path, programs: Path, account: Any) -> dict[str, str]:
    empty = OwnDatabase(folder / "from_dump", {})
    empty.start()
    try:
        await asyncio.to_thread(_run, account, programs / "pg_restore", "--exit-on-error", "-d", empty.url, dump)
        return await checksums(empty.url)
    finally:
        empty.stop()


async def _restore_base(folder: Path, kept: Path, archive: Path, mutant: str | None) -> dict[str, str]:
    """As docs/reliability.md says: the backup in the place of the cluster, the log fetched from the archive."""
    place = folder / "from_base"
    place.mkdir()
    place.chmod(0o711)
    cluster = place / "postgresql-18"
    shutil.move(kept / "base", cluster)
    (cluster / "recovery.signal").touch()
    os.chmod(cluster / "recovery.signal", 0o600)
    owner = cluster.stat()
    os.chown(cluster / "recovery.signal", owner.st_uid, owner.st_gid)
    if mutant == WITHOUT_THE_LOG:
        # The segment that the backup ends in stays: what came after it goes.
        (told,) = archive.glob("*.backup")
        last = re.search(r"STOP WAL LOCATION: .* \(file (\w+)\)", told.read_text())
        for path in archive.iterdir():
            if last and "." not in path.name and path.name > last[1]:
                path.unlink()
    database = OwnDatabase(place, {"restore_command": f"cp {archive}/%f %p"})
    database.start()
    try:
        for _ in range(600):
            (row,) = await database.fetch("SELECT pg_is_in_recovery()")
            if not row[0]:
                break
            await asyncio.sleep(0.1)
        return await checksums(database.url)
    finally:
        database.stop()
