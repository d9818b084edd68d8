"""Where the processes of a layer meet: a directory of this user's alone, a lock, a socket.

    <parent>/channels-<uid>-<hash>/     0700
        hub.lock                        whoever holds it (flock) is the hub; its pid is in it
        hub.sock                        where the hub listens
        hub.left                        what the last hub left to the next one
        <node>.node                     locked by each process: a new hub knows who will come

A lock dies with its holder, however that ends; nothing here needs to be cleaned up.  What lies in
another user's hands is refused: an attacker on the same machine could read along.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from channels.exceptions import InvalidChannelLayerError

#: Octets of a socket's path, without the closing zero: sun_path has 108 on Linux, 104 on BSD.
MAX_PATH_OCTETS: Final = 107 if sys.platform == "linux" else 103
_NODE_SUFFIX: Final = ".node"
#: Linux' struct ucred: pid, uid, gid.
_UCRED: Final = struct.Struct("@3i")
#: The BSDs' struct xucred: version, uid, and more.  getsockopt(SOL_LOCAL, LOCAL_PEERCRED).
_XUCRED: Final = struct.Struct("@IIh2x16I")


def project_name() -> str:
    """What tells this project from another of the same user: the file of its Django settings.

    Not the working directory, which differs between a service and a cron job.  Empty without
    Django.
    """
    module = sys.modules.get(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
    path = getattr(module, "__file__", None)
    return str(Path(path).resolve()) if path else ""


def find_place(prefix: str, directory: str | os.PathLike[str] | None) -> Place:
    """The place for a layer with this prefix.

    Without a directory it is the system's for temporary files.  It is neither XDG_RUNTIME_DIR nor
    /run/user/<uid>, which exist only while the user is logged in: a service that started at boot
    and a shell of its user shall meet.  Nor is it RUNTIME_DIRECTORY, which only the service has.

    Raises:
        InvalidChannelLayerError: If the socket's path would be too long.
    """
    parent = Path(tempfile.gettempdir() if directory is None else directory).expanduser().absolute()
    key = "\0".join((project_name() if directory is None else "", prefix))
    name = f"channels-{os.geteuid()}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    place = Place(parent / name)
    if place.octets > MAX_PATH_OCTETS and directory is None:
        place = Place(Path("/tmp") / name)
    if place.octets > MAX_PATH_OCTETS:
        raise InvalidChannelLayerError(
            f"directory={str(directory)!r} makes a socket path of {place.octets} octets, where "
            f"this system allows {MAX_PATH_OCTETS}: choose a shorter directory."
        )
    return place


class Place:
    """One such directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "hub.sock"
        self.lock = directory / "hub.lock"
        self.left = directory / "hub.left"

    @property
    def octets(self) -> int:
        """Length of the socket's path."""
        return len(os.fsencode(self.socket))

    def prepare(self) -> None:
        """Make the directory, or check the one that is there.

        Raises:
            InvalidChannelLayerError: If it cannot be made, or others could have a hand in it.
        """
        self._check_parent()
        try:
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir(mode=0o700)
            # Not followed: a symbolic link, planted by another, would lead into a place of theirs.
            found = self.directory.lstat()
        except OSError as error:
            raise InvalidChannelLayerError(
                f"The local layer's directory {self.directory} cannot be made ({error}): set "
                "directory= to one that this user may write to."
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise self._refusal("it is no directory")
        if found.st_uid != os.geteuid():
            raise self._refusal(f"it belongs to user {found.st_uid}")
        if found.st_mode & 0o077:
            raise self._refusal(f"its mode is {stat.S_IMODE(found.st_mode):04o}")

    def _check_parent(self) -> None:
        parent = self.directory.parent
        try:
            mode = parent.stat().st_mode
        except OSError as error:
            raise InvalidChannelLayerError(
                f"The local layer's directory {parent} is not there ({error.strerror}): create it, "
                "or set directory= to one that is."
            ) from error
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise InvalidChannelLayerError(
                f"Everyone may rename what lies in {parent} (mode {stat.S_IMODE(mode):04o} without "
                "the sticky bit): set directory= to another."
            )

    def _refusal(self, found: str) -> InvalidChannelLayerError:
        return InvalidChannelLayerError(
            f"The local layer cannot meet in {self.directory}: {found}; expected a directory of "
            f"user {os.geteuid()} with mode 0700. Remove it, or set directory= in CONFIG to a "
            "directory that nobody else may write to, the same for all processes: one in this "
            "user's home, or what RuntimeDirectory= of systemd makes below /run."
        )

    def hub_pid(self) -> int | None:
        """The process that is the hub, or was it last."""
        try:
            return int(self.lock.read_text())
        except (OSError, ValueError):
            return None

    def node(self, name: str) -> Path:
        """The file that a process holds locked while it uses the layer."""
        return self.directory / (name + _NODE_SUFFIX)

    def living_nodes(self) -> set[str]:
        """The processes that use the layer; the files of those that have died are removed."""
        living = set()
        for path in self.directory.glob("*" + _NODE_SUFFIX):
            lock = Lock.take(path)
            if lock is None:
                living.add(path.name.removesuffix(_NODE_SUFFIX))
            else:
                path.unlink(missing_ok=True)
                lock.release()
        return living


class Lock:
    """A file that this process has locked.  Use `take`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Lock a file, made if need be; None if another holds it.

        Raises:
            OSError: If it cannot be opened, because it is a symbolic link for instance.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = cls(path, os.open(path, flags, 0o600))
        try:
            fcntl.flock(lock._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.release()
            return None
        if not lock.is_current():
            # Removed between the opening and the locking: this lock would keep nobody out.
            lock.release()
            return None
        return lock

    def write(self, text: str) -> None:
        """Put `text` in the place of what the file holds."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def is_current(self) -> bool:
        """True if the locked file is the one that its path names still."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except OSError:
            return False

    def touch(self) -> None:
        """Show those who clear out temporary files that this one is in use."""
        os.utime(self._descriptor)

    def release(self) -> None:
        """Let go.  In a forked child the parent keeps the lock."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def listen(place: Place, backlog: int = 512) -> socket.socket:
    """The hub's socket.  Only the holder of the lock may call this."""
    place.socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(place.socket))
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def dial(place: Place) -> socket.socket:
    """A connection to the hub; at once, or not at all.

    Raises:
        FileNotFoundError, ConnectionRefusedError: If there is no hub.
        BlockingIOError: If it lets too many wait.
        PermissionError: If the process that listens there is another user's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(str(place.socket))
        uid = peer_uid(connection)
        if uid != os.geteuid():
            raise PermissionError(f"The hub at {place.socket} is a process of user {uid}.")
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int:
    """The user whose process is at the other end, as the kernel knows it."""
    if hasattr(socket, "SO_PEERCRED"):
        level, option, form = socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED
    else:
        level, option, form = 0, getattr(socket, "LOCAL_PEERCRED", 1), _XUCRED
    uid: int = form.unpack(connection.getsockopt(level, option, form.size))[1]
    return uid
