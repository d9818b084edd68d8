"""The directory, its lock and its socket, in the hands of others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from channels.backends.local import place as place_module
from channels.backends.local.place import (
    MAX_PATH_OCTETS,
    Lock,
    Place,
    dial,
    find_place,
    listen,
    peer_uid,
    project_name,
)
from channels.exceptions import InvalidChannelLayerError


@pytest.fixture
def place(short_path: Path) -> Place:
    return find_place("test", short_path)


def test_the_directory_is_made_for_this_user_alone(place: Place) -> None:
    place.prepare()
    place.prepare()
    assert place.directory.stat().st_mode & 0o7777 == 0o700


def test_a_directory_that_others_may_enter_is_refused(place: Place) -> None:
    place.directory.mkdir(mode=0o700)
    place.directory.chmod(0o750)
    with pytest.raises(InvalidChannelLayerError, match=r"its mode is 0750; expected .* mode 0700"):
        place.prepare()


def test_a_symbolic_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    place.directory.symlink_to(target)
    with pytest.raises(InvalidChannelLayerError, match="it is no directory"):
        place.prepare()


def test_another_users_directory_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.prepare()
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(InvalidChannelLayerError, match=f"it belongs to user {mine}"):
        place.prepare()


def test_a_parent_in_which_everyone_may_rename_is_refused(short_path: Path) -> None:
    parent = short_path / "p"
    parent.mkdir()
    parent.chmod(0o777)
    with pytest.raises(InvalidChannelLayerError, match="without the sticky bit"):
        find_place("x", parent).prepare()
    parent.chmod(0o1777)
    find_place("x", parent).prepare()


def test_a_parent_that_is_not_there(short_path: Path) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"is not there .* create it"):
        find_place("x", short_path / "missing").prepare()


def test_a_lock_that_is_a_link_is_not_opened(place: Place, tmp_path: Path) -> None:
    place.prepare()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    place.lock.symlink_to(victim)
    with pytest.raises(OSError, match=r"[Ll]evels of symbolic links|ELOOP|symbolic"):
        Lock.take(place.lock)
    assert victim.read_text() == "precious"


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidChannelLayerError, match=f"allows {MAX_PATH_OCTETS}: choose a short"):
        find_place("x", tmp_path / ("long" * 30))


def test_the_longest_path_that_is_allowed_can_be_bound() -> None:
    with tempfile.TemporaryDirectory(prefix="hub", dir="/tmp") as directory:
        spare = MAX_PATH_OCTETS - find_place("x", directory).octets
        parent = Path(directory) / ("p" * (spare - 1))
        parent.mkdir()
        place = find_place("x", parent)
        assert place.octets == MAX_PATH_OCTETS
        place.prepare()
        with listen(place), dial(place):
            pass


def test_a_long_default_falls_back_to_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    assert find_place("x", None).directory.parent == Path("/tmp")


def test_projects_and_prefixes_have_places_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site.settings")
    places = set()
    for path in ("/srv/one/settings.py", "/srv/two/settings.py"):
        monkeypatch.setitem(sys.modules, "site.settings", SimpleNamespace(__file__=path))
        assert project_name() == path
        places |= {find_place(prefix, None).directory for prefix in ("a", "b")}
    assert len(places) == 4


def test_the_working_directory_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = find_place("a", None).directory
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_place("a", None).directory == before


OTHER_USER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def temporary(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As /tmp: everybody may make files in it, and remove his own."""
    short_path.chmod(0o755)
    found = short_path / "tmp"
    found.mkdir()
    found.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(found))
    # Processes of one project meet; the scripts below have no settings.
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    return found


def run(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_as_other(script: str, temporary: Path) -> str:
    """What a script prints as another user, who may not even read this checkout."""
    begin = f"""
import os, sys, tempfile
from channels.backends.local.place import find_place
os.setgroups([])
os.setgid({OTHER_USER})
os.setuid({OTHER_USER})
tempfile.tempdir = {str(temporary)!r}
"""
    return run(begin + script)


def occupy(uid: int, path: Path) -> None:
    """Make a directory as another user, whose it then is."""
    path.mkdir()
    os.chown(path, uid, uid)


@needs_root
def test_a_user_who_is_not_root_can_do_as_the_error_says(temporary: Path) -> None:
    script = """
place = find_place('site', None)
try:
    place.prepare()
except Exception as error:
    print(error)
else:
    print(place.directory)
"""
    first = Path(run_as_other(script, temporary).strip())
    first.rmdir()
    occupy(12345, first)
    said = run_as_other(script, temporary)
    assert "it belongs to user 12345" in said
    assert "set directory= in CONFIG" in said
    home = temporary.parent / "home"
    occupy(OTHER_USER, home)
    run_as_other(f"find_place('site', {str(home)!r}).prepare()", temporary)
    assert [path.stat().st_uid for path in home.iterdir()] == [OTHER_USER]


def test_one_holds_a_lock(place: Place) -> None:
    place.prepare()
    first = Lock.take(place.lock)
    assert first is not None
    first.write("4711")
    assert Lock.take(place.lock) is None
    assert place.hub_pid() == 4711
    first.release()
    second = Lock.take(place.lock)
    assert second is not None
    second.write("12")
    assert place.hub_pid() == 12
    second.release()


def test_a_lock_whose_file_was_removed_is_no_lock(place: Place) -> None:
    place.prepare()
    lock = Lock.take(place.lock)
    assert lock is not None
    assert lock.is_current()
    place.lock.unlink()
    assert not lock.is_current()
    lock.release()


def test_a_killed_holder_lets_go(place: Place) -> None:
    place.prepare()
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from channels.backends.local.place import Lock\n"
        "lock = Lock.take(Path(sys.argv[1]))\n"
        "print(lock is not None, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place.lock)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert Lock.take(place.lock) is None
        holder.kill()
    lock = Lock.take(place.lock)
    assert lock is not None
    lock.release()


def test_living_nodes_are_those_that_hold_their_file(place: Place) -> None:
    place.prepare()
    place.node("ndead").touch()
    lock = Lock.take(place.node("nalive"))
    assert place.living_nodes() == {"nalive"}
    assert not place.node("ndead").exists()
    assert lock is not None
    lock.release()


def test_a_stale_socket_is_replaced(place: Place) -> None:
    place.prepare()
    with pytest.raises(FileNotFoundError):
        dial(place)
    listen(place).close()
    with pytest.raises(ConnectionRefusedError):
        dial(place)
    with listen(place), dial(place) as connection:
        assert peer_uid(connection) == os.geteuid()


def test_a_hub_of_another_user_is_not_spoken_to(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.prepare()

    def other(_: Any) -> int:
        return os.geteuid() + 1

    monkeypatch.setattr(place_module, "peer_uid", other)
    with listen(place), pytest.raises(PermissionError, match="is a process of user"):
        dial(place)
