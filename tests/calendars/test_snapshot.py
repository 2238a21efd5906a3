"""A reading comes back as it was saved, or not at all and with a reason."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calendars.reservation import Misunderstood, ModelRequest, Reading, Reservation
from calendars.snapshot import VERSION, Remembered, SnapshotProblem, Snapshots
from tests.calendars.texts import at
from tests.examples import examples

NOON = at("2026-03-02 12:00")
READING = Reading(
    calendar="lab@group.calendar.google.com",
    reservations=(
        Reservation(
            key="a/20260302T090000Z",
            calendar="lab@group.calendar.google.com",
            title="„Grüße“ 🎉\nline",
            start=at("2026-03-02 09:00"),
            end=at("2026-03-02 10:00:00.123456"),
            booked_at=at("2026-01-01"),
            owner="ada@example.org",
            request=ModelRequest(model="a/b", replicas=2, dtype="bfloat16", gpus=1, priority=-3),
        ),
    ),
    misunderstood=(
        Misunderstood(key="b", calendar="lab", title="Lunch", reason="No model.", example="model: a/b"),
    ),
)


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "state" / "calendars")


def why(found: object) -> str:
    assert isinstance(found, SnapshotProblem), found
    assert found.reason.endswith(".")
    assert found.remedy.endswith(".")
    return found.reason


def test_what_was_saved_is_loaded(snapshots: Snapshots) -> None:
    assert snapshots.load("lab") is None
    assert snapshots.save("lab", READING, NOON) is None
    assert snapshots.load("lab") == Remembered(reading=READING, read_at=NOON)
    assert snapshots.load("other") is None
    later = at("2026-03-02T14:00+01:00")
    assert snapshots.save("lab", Reading(calendar="lab"), later) is None
    assert snapshots.load("lab") == Remembered(reading=Reading(calendar="lab"), read_at=later)


def test_what_was_saved_before_events_could_be_private_is_still_read(snapshots: Snapshots) -> None:
    assert snapshots.save("lab", READING, NOON) is None
    path = snapshots.path("lab")
    first, _, body = path.read_bytes().partition(b"\n")
    older = json.loads(body)
    for one in older["reservations"]:
        assert one.pop("people") == [] and one["request"].pop("private") is False
    body = json.dumps(older).encode()
    header = json.loads(first) | {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert snapshots.load("lab") == Remembered(reading=READING, read_at=NOON)


def test_only_the_snapshot_is_left_and_only_this_user_may_read_it(snapshots: Snapshots) -> None:
    snapshots.save("lab", READING, NOON)
    path = snapshots.path("lab")
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


NAMES = [
    "",
    ".",
    "..",
    "/",
    "a/b",
    "A/B",
    "a b",
    "x" * 300,
    "ü@group.calendar.google.com",
    "\ud800",
    "a\0b",
    "\n",
]


def test_every_name_has_a_file_of_its_own_in_the_folder(snapshots: Snapshots) -> None:
    paths = {name: snapshots.path(name) for name in NAMES}
    assert len(set(paths.values())) == len(NAMES)
    for number, (name, path) in enumerate(paths.items()):
        assert path.parent == snapshots.path("lab").parent
        assert path.name.isascii() and len(path.name) < 100
        assert snapshots.save(name, Reading(calendar=str(number)), NOON) is None
    for number, name in enumerate(NAMES):
        found = snapshots.load(name)
        assert isinstance(found, Remembered)
        assert found.reading.calendar == str(number)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: b"", "damaged"),
        (lambda content: content[:-1], "damaged"),
        (lambda content: content + b" ", "damaged"),
        (lambda content: content[:50], "damaged"),
        (lambda content: content[: content.index(b"\n")], "damaged"),
        (lambda content: content.replace(b"Lunch", b"lunch"), "checksum"),
        (lambda content: b"\0" * len(content), "damaged"),
        (lambda content: b"[" * 100_000 + b"\n", "damaged"),
        (lambda content: b"\xff\n", "damaged"),
        (lambda content: content.replace(b'"version":1', b'"version":2', 1), "another version (2, not 1)"),
        (lambda content: content.replace(b'"version":1', b'"version":0', 1), "another version (0, not 1)"),
        (lambda content: content.replace(b'"size_bytes"', b'"size"', 1), "first line is not complete"),
        (lambda content: content.replace(b'"name":"lab"', b'"name":"bal"', 1), "another calendar"),
    ],
)
def test_what_is_damaged_or_of_another_version_is_not_used(snapshots: Snapshots, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    snapshots.save("lab", READING, NOON)
    path = snapshots.path("lab")
    path.write_bytes(damage(path.read_bytes()))
    said = why(snapshots.load("lab"))
    assert reason in said
    assert str(path) in said
    assert snapshots.save("lab", READING, NOON) is None
    assert snapshots.load("lab") == Remembered(reading=READING, read_at=NOON)


def test_a_reading_of_another_shape_is_not_used(snapshots: Snapshots) -> None:
    snapshots.save("lab", READING, NOON)
    path = snapshots.path("lab")
    body = b'{"calendar": "lab", "reservations": [{}]}'
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    header |= {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert "this version does not understand" in why(snapshots.load("lab"))
    assert header["version"] == VERSION


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_no_flipped_bit_goes_unnoticed(snapshots: Snapshots, data: st.DataObject) -> None:
    snapshots.save("lab", READING, NOON)
    path = snapshots.path("lab")
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    found = snapshots.load("lab")
    # A bit of the time in the first line may make another time; the reading is never another.
    assert isinstance(found, SnapshotProblem) or found == Remembered(
        reading=READING, read_at=found.read_at if found else NOON
    )


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    snapshots = Snapshots(tmp_path / "file" / "folder")
    assert "not a directory" in why(snapshots.save("lab", READING, NOON))
    assert "not a directory" in why(snapshots.load("lab"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "permission denied" in why(Snapshots(tmp_path).save("lab", READING, NOON))


@pytest.mark.parametrize("at_fault", ["fsync", "replace"])
def test_a_full_disk_is_reported_and_the_last_reading_stays(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch, at_fault: str
) -> None:
    snapshots.save("lab", READING, NOON)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if at_fault == "fsync":
            patched.setattr(os, "fsync", fail)
        else:
            patched.setattr(Path, "replace", fail)
        said = why(snapshots.save("lab", Reading(calendar="lab"), NOON))
    assert "no space left on device" in said
    assert snapshots.load("lab") == Remembered(reading=READING, read_at=NOON)
    assert len(list(snapshots.path("lab").parent.iterdir())) == 1


def test_a_file_that_may_not_grow_is_reported_too(tmp_path: Path) -> None:
    """The operating system's own refusal to write on, in a process of its own."""
    code = """
        import resource, signal, sys
        from datetime import datetime, UTC
        from pathlib import Path
        from calendars.reservation import Reading
        from calendars.snapshot import Snapshots
        snapshots = Snapshots(Path(sys.argv[1]))
        assert snapshots.save("lab", Reading(calendar="lab"), datetime(2026, 3, 2, tzinfo=UTC)) is None
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        print(snapshots.save("lab", Reading(calendar="x" * 5000), datetime(2026, 3, 2, tzinfo=UTC)))
        print(snapshots.load("lab"))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "file too large" in first
    assert "calendar='lab'" in second


def test_what_a_crash_left_behind_is_overwritten(snapshots: Snapshots) -> None:
    snapshots.save("lab", READING, NOON)
    path = snapshots.path("lab")
    path.with_name(f".{path.name}.new").write_bytes(b"half")
    assert snapshots.load("lab") == Remembered(reading=READING, read_at=NOON)
    assert snapshots.save("lab", READING, NOON) is None
    assert len(list(path.parent.iterdir())) == 1


def test_a_time_without_a_zone_is_refused(snapshots: Snapshots) -> None:
    with pytest.raises(ValueError, match="not an instant"):
        snapshots.save("lab", READING, NOON.replace(tzinfo=None))
