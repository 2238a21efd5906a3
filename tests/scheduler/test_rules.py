"""Who may book what, for how long and how much."""

from __future__ import annotations

from datetime import timedelta

import pytest

from calendars.reservation import Reservation
from scheduler.planning.rules import keep_to, week_of
from scheduler.planning.targets import Booked, Refused, resolve
from scheduler.types import Catalog, CatalogEntry, Rules
from tests.scheduler.builders import NOON, PLAIN, booking, cluster, cpu, gpus, known

ON = cluster(gpus("g", 8, 80), cpu("c", 8))
CATALOG = Catalog(entries=(CatalogEntry(repo_id="org/a", aliases=("Alias",)),))


def refused(rules: Rules, *reservations: Reservation) -> dict[str, str]:
    """What is refused, by key, with its sentence."""
    resolved = [resolve(one, CATALOG, known(a=70, b=70, big=150), PLAIN) for one in reservations]
    kept = keep_to(rules, resolved, ON)
    assert [one.reservation.key for one in kept] == [one.key for one in reservations], "the order stays"
    return {one.reservation.key: one.reason.detail or "" for one in kept if isinstance(one, Refused)}


def test_all_rules_are_off_by_default() -> None:
    assert refused(Rules(), booking("org/a", end=9000, owner=None, replicas=8)) == {}


@pytest.mark.parametrize(
    ("owner", "may"),
    [
        ("ada@example.org", True),
        ("ADA@Example.org", True),
        ("bob@lab.org", True),
        ("bob@example.org", False),
        ("bob@notlab.org", False),
        ("lab.org", False),
        (None, False),
        ("", False),
    ],
)
def test_organisers_are_mails_and_domains(owner: str | None, may: bool) -> None:
    rules = Rules(organisers=("ada@example.org", "@lab.org"))
    said = refused(rules, booking("org/a", key="k", owner=owner))
    assert bool(said) is not may
    assert may or "booking.organisers" in said["k"]


def test_models_by_organiser_limit_those_they_name_by_repo_id_or_alias() -> None:
    rules = Rules(models_by_organiser={"lab.org": ("alias",), "bob@lab.org": ("org/b",)})
    ada, bob, eve = "ada@lab.org", "bob@lab.org", "eve@example.org"
    said = refused(
        rules,
        booking("org/a", key="ada a", owner=ada),
        booking("org/b", key="ada b", owner=ada),
        booking("org/b", key="bob b", owner=bob),
        booking("org/b", key="eve b", owner=eve),
    )
    assert list(said) == ["ada b"]
    assert "booking.models_by_organiser" in said["ada b"]


def test_the_longest_booking() -> None:
    said = refused(
        Rules(longest_hours=4),
        booking("org/a", start=0, end=4, key="4"),
        booking("org/a", start=0, end=4.01, key="5"),
    )
    assert list(said) == ["5"]
    assert "booking.longest_hours" in said["5"]


def test_gpu_hours_are_used_up_in_the_order_of_booking_and_by_what_is_admitted_only() -> None:
    rules = Rules(gpu_hours_per_week=24)
    said = refused(
        rules,
        booking("org/a", start=0, end=10, key="third", booked=-1),  # 8.75 of the 8 that are left
        booking("org/big", start=0, end=8, key="first", booked=-9),  # 2 GPUs for 8 hours: 16
        booking("org/big", start=0, end=5, key="second", booked=-5),  # 10 of the 8 that are left
        booking("org/a", start=0, end=9, key="fourth", booked=-0.5),  # 7.875 of the 8 that are left
        booking("org/a", start=0, end=20, key="other", owner="eve@example.org"),
    )
    assert sorted(said) == ["second", "third"]
    assert "8.0 are left" in said["second"]
    assert "booking.gpu_hours_per_week" in said["second"]


def test_a_booking_over_midnight_on_sunday_counts_in_both_weeks() -> None:
    sunday = (week_of(NOON) + timedelta(days=7) - NOON) / timedelta(hours=1)
    over = booking("org/big", start=sunday - 2, end=sunday + 2, key="over", booked=-9)
    before = booking("org/big", start=sunday - 9, end=sunday - 8, key="before", booked=-5)
    after = booking("org/big", start=sunday + 3, end=sunday + 5, key="after", booked=-1)
    assert sorted(refused(Rules(gpu_hours_per_week=4), over, before, after)) == ["after", "before"]
    assert refused(Rules(gpu_hours_per_week=8), over, before, after) == {}


def test_cpus_cost_no_gpu_hours() -> None:
    one = resolve(booking("org/a", end=500), CATALOG, known(a=4), PLAIN)
    assert isinstance(keep_to(Rules(gpu_hours_per_week=1), [one], cluster(cpu("c", 8)))[0], Booked)
