"""The data folder: whose it is, who may enter it, and who holds it. Nothing outside of it is ever changed."""

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

LAUNCHER_LOCK = "launcher.lock"
ROOT_DATA_DIR = Path("/var/lib/perennial")
PROJECT_DIR = Path(__file__).resolve().parents[2]
# 107 bytes is what a Unix socket's address holds; PostgreSQL names its socket `.s.PGSQL.5432`.
LONGEST_SOCKET_DIR = 107 - len("/.s.PGSQL.5432")


class EmbeddedServerError(Exception):
    """The embedded server cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """The operating system's user that the server runs as."""

    name: str
    uid: int
    gid: int

    def popen_options(self) -> dict[str, Any]:
        """Options with which `subprocess` starts a program as this user."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def default_data_dir() -> Path:
    """Return the data folder in use where none is set."""
    return ROOT_DATA_DIR if os.geteuid() == 0 else PROJECT_DIR / ".data"


def account_for(cluster: Path | None = None) -> Account:
    """Choose the server's user. PostgreSQL refuses to run as root, so root lends it an unprivileged account.

    That is the one that owns `cluster`, the database's files, if they exist already.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(_user_name(uid), uid, os.getegid())
    if cluster is not None and cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(_user_name(owner.st_uid), owner.st_uid, owner.st_gid)
    for name in ("perennial", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and there is neither a user 'perennial' nor a user 'nobody' to run it as. "
        "Create one (useradd --system perennial), or set PERENNIAL_DATABASE_URL."
    )


def may(account: Account, permission: Literal["r", "x"], *paths: Path) -> bool:
    """Tell whether `account` has `permission` (a letter of test(1)) on all of `paths`."""
    return _first_without(account, permission, *paths) is None


def prepare_data_dir(data_dir: Path, account: Account) -> None:
    """Make the data folder, and refuse it where the server's user cannot enter it."""
    missing = [folder for folder in data_dir.parents if not folder.exists()]
    existing = [folder for folder in data_dir.parents if folder.exists()]
    _require_passage(account, data_dir, existing)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_passage(account, data_dir, missing)
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise EmbeddedServerError(
            f"The data folder {data_dir} cannot be written by user {_user_name(os.geteuid())!r}. {remedy()}"
        )
    if may(account, "x", data_dir):
        return
    content = {entry.name for entry in data_dir.iterdir()}
    if (content and LAUNCHER_LOCK not in content) or data_dir.stat().st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"The PostgreSQL server runs as user {account.name!r}, who cannot enter the data folder {data_dir}, "
            f"and the folder already belongs to something else. {remedy()}"
        )
    # The folder is ours alone. Passage (x without r) for the server's group is the least that lets it work.
    os.chown(data_dir, -1, account.gid)
    data_dir.chmod(stat.S_IMODE(data_dir.stat().st_mode) | stat.S_IXGRP)


def own_folder(folder: Path, account: Account) -> Path:
    """Make `folder`, open to the server's user alone, or verify that it is just that."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.lstat().st_uid == os.geteuid() != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o077:
        raise EmbeddedServerError(f"{folder} is not a folder open to user {account.name!r} alone. Remove it.")
    return folder


def socket_dir(data_dir: Path, account: Account) -> Path:
    """Return the private folder of the server's socket: in the data folder, unless such a path cannot work."""
    folder = data_dir / "socket"
    # A comma parts hosts in a database URL.
    if len(os.fsencode(folder)) > LONGEST_SOCKET_DIR or "," in str(folder):
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()
        folder = temporary_parent(account) / f"perennial-{digest[:16]}"
    return own_folder(folder, account)


def temporary_parent(account: Account) -> Path:
    """Return a folder for temporary things that the server's user can reach."""
    for parent in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))):  # noqa: S108
        short = len(os.fsencode(parent)) + 32 <= LONGEST_SOCKET_DIR
        if short and parent.is_dir() and may(account, "x", *parent.resolve().parents, parent):
            return parent
    raise EmbeddedServerError(f"There is no temporary folder that user {account.name!r} can reach. Set TMPDIR to one.")


@contextlib.contextmanager
def temporary_folder(prefix: str = "perennial-") -> Iterator[Path]:
    """A new folder that the server's user can pass through, thrown away afterwards with all that is in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=temporary_parent(account_for())))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def try_lock(path: Path) -> IO[str] | None:
    """Lock the file until it is closed by all processes that hold it open; None if others hold it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def lock_for_launcher(data_dir: Path, *, patience: float) -> IO[str]:
    """Make this process the one launcher of the data folder. A launcher that is just ending is waited for."""
    path = data_dir / LAUNCHER_LOCK
    deadline = time.monotonic() + patience
    while (file := try_lock(path)) is None:
        if time.monotonic() > deadline:
            holder = path.read_text().strip() or "unknown"
            raise EmbeddedServerError(
                f"The data folder {data_dir} is in use by another launcher, process {holder}. "
                "Stop that one first, or set PERENNIAL_DATA_DIR to another folder."
            )
        time.sleep(0.05)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _require_passage(account: Account, data_dir: Path, parents: list[Path]) -> None:
    barrier = _first_without(account, "x", *reversed(parents))
    if barrier is not None:
        raise EmbeddedServerError(
            f"The PostgreSQL server runs as user {account.name!r}, who cannot enter {barrier}, "
            f"a parent of the data folder {data_dir}. {remedy()}"
        )


def _first_without(account: Account, permission: Literal["r", "x"], *paths: Path) -> Path | None:
    # The kernel is asked as that user, because modes alone say nothing of access lists or read-only mounts.
    script = f'for path; do [ -{permission} "$path" ] || {{ printf %s "$path"; exit 1; }}; done'
    found = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *map(str, paths)],
        cwd="/",
        env={},
        stdout=subprocess.PIPE,
        check=False,
        **account.popen_options(),
    )
    return Path(os.fsdecode(found.stdout)) if found.returncode else None


def remedy() -> str:
    """Say what to do about a data folder that cannot be used."""
    example = ROOT_DATA_DIR if os.geteuid() == 0 else os.path.expanduser("~/perennial-data")
    return f"Set PERENNIAL_DATA_DIR to a folder that user can reach, for example PERENNIAL_DATA_DIR={example}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
