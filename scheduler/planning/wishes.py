"""What is booked, as planning needs it; worked out anew only where what it is made from is another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from calendars.reservation import Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Ask
from scheduler.planning.rules import keep_to
from scheduler.planning.targets import Booked, Refused, resolve
from scheduler.planning.verdicts import ask_of
from scheduler.types import Catalog, Checkpoint, Deployment, Rules, UnknownSize

Sizes = Mapping[str, Checkpoint | UnknownSize]


@dataclass(frozen=True)
class Basis:
    """All that reservations are judged by, but for the cluster and what runs."""

    catalog: Catalog
    checkpoints: Sizes
    loads: Loads
    rules: Rules


@dataclass(slots=True)
class _Entry:
    """One reservation, and what came of it. ``allowed`` is ``found``, or a refusal for a broken rule."""

    reservation: Reservation
    found: Booked | Refused
    allowed: Booked | Refused
    ask: Ask | None


class Wishes:
    """All reservations that have not ended, in the order of their starts.

    ``resolved`` are all of them, ``booked`` those that a placement can be looked for, by key;
    ``asks`` are theirs as far as they start within the horizon, ``beyond`` the keys of the others.
    ``edges`` is at how many instants something of ``asks`` starts or ends.
    """

    def __init__(self) -> None:
        self.reservations: list[Reservation] = []
        self.resolved: tuple[Booked | Refused, ...] = ()
        self.booked: dict[str, Booked] = {}
        self.asks: dict[str, Ask] = {}
        self.beyond: frozenset[str] = frozenset()
        self.edges: frozenset[float] = frozenset()
        self._basis: Basis | None = None
        self._served: dict[str, Deployment] = {}
        self._reach = -1.0
        self._begun: frozenset[str] = frozenset()
        self._cluster: Cluster | None = None
        self._given: dict[str, Reservation] = {}
        self._entries: dict[str, _Entry] = {}
        self._order: list[str] = []
        self._of_model: defaultdict[str | None, set[str]] = defaultdict(set)
        self._stable: tuple[float, float] = (0.0, 0.0)
        """Between these instants nothing ends or comes within the horizon."""

    def update(
        self,
        readings: Iterable[Reading],
        basis: Basis,
        cluster: Cluster,
        deployments: Iterable[Deployment],
        at: datetime,
        horizon_seconds: float,
    ) -> set[str]:
        """Take in what is wanted now; returns the keys of what is asked for differently, came or went."""
        gone, todo = self._read(readings)
        todo |= self._concerned(basis, deployments)
        for name in gone:
            self._remove(name)
        redone = self._resolve(todo, basis)
        redone |= self._obey(basis.rules, cluster, deployments, bool(redone or gone))
        redone |= self._ask(basis, redone)
        self._basis = basis
        now, reach = at.timestamp(), self._reach
        self._reach = horizon_seconds
        if redone or gone or reach != horizon_seconds or not self._stable[0] <= now < self._stable[1]:
            return self._collect(at, now, horizon_seconds)
        return set()

    # What was read

    def _read(self, readings: Iterable[Reading]) -> tuple[list[str], set[str]]:
        """What is gone, and what is new or another, by its name here: its key, unless that is not its own."""
        given: dict[str, Reservation] = {}
        total = 0
        for reading in readings:
            total += len(reading.reservations)
            given.update({one.key: one for one in reading.reservations})
        if len(given) != total:
            given = _told_apart(one for reading in readings for one in reading.reservations)
        before = self._given
        todo = set()
        for name in [name for name, one in given.items() if before.get(name) is not one]:
            known = before.get(name)
            if known is not None and known == given[name]:
                given[name] = known
            else:
                todo.add(name)
        gone = list(before.keys() - given.keys())
        self._given = given
        if todo or gone:
            self._order = sorted(given, key=lambda name: (given[name].start, name))
            self.reservations = [given[name] for name in self._order]
        return gone, todo

    def _concerned(self, basis: Basis, deployments: Iterable[Deployment]) -> set[str]:
        """What is not new, and must be looked at again for what is known of models, or runs, by now."""
        served = {one.model.key: one for one in deployments}
        known, before, self._served = self._basis, self._served, served
        if known is None or known.catalog != basis.catalog or known.loads.sizing != basis.loads.sizing:
            return set(self._given)
        models = {
            key
            for key in before.keys() | served.keys()
            if _as_served(before.get(key)) != _as_served(served.get(key))
        }
        old, new = known.checkpoints, basis.checkpoints
        if old is not new and old != new:
            models |= {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        found = {name for key in models for name in self._of_model.get(key, ())}
        return found & self._given.keys()

    def _remove(self, name: str) -> None:
        if (entry := self._entries.pop(name, None)) is not None:
            self._of_model[_model_key(entry.found)].discard(name)

    # What comes of it

    def _resolve(self, names: Iterable[str], basis: Basis) -> set[str]:
        done = set()
        for name in names:
            one = self._given[name]
            found = resolve(one, basis.catalog, basis.checkpoints, basis.loads.sizing, self._served)
            known = self._entries.get(name)
            if known is not None and known.found == found:
                continue
            self._remove(name)
            self._entries[name] = _Entry(one, found, found, None)
            self._of_model[_model_key(found)].add(name)
            done.add(name)
        return done

    def _obey(
        self, rules: Rules, cluster: Cluster, deployments: Iterable[Deployment], redone: bool
    ) -> set[str]:
        """Refuse what breaks a rule; returns what is judged differently than before."""
        same = self._basis is None or self._basis.rules == rules
        if rules == Rules():
            if same:
                return set()
            allowed = [self._entries[name].found for name in self._order]
        else:
            begun = frozenset(key for one in deployments for key in one.reservations)
            if same and not redone and begun == self._begun and cluster == self._cluster:
                return set()
            self._begun, self._cluster = begun, cluster
            allowed = keep_to(rules, [self._entries[name].found for name in self._order], cluster, begun)
        done = set()
        for name, one in zip(self._order, allowed, strict=True):
            entry = self._entries[name]
            if entry.allowed is not one and entry.allowed != one:
                entry.allowed, entry.ask = one, None
                done.add(name)
        return done

    def _ask(self, basis: Basis, redone: set[str]) -> set[str]:
        loads = basis.loads
        names: Iterable[str] = redone
        if self._basis is None or self._basis.loads != loads:
            names = self._order
        done = set()
        for name in names:
            entry = self._entries[name]
            one = entry.allowed
            if isinstance(one, Booked):
                ask = ask_of(one, loads.longest_seconds(one.model.key, one.footprint_bytes))
                if ask != entry.ask:
                    entry.ask = ask
                    done.add(name)
        return done

    def _collect(self, at: datetime, now: float, horizon_seconds: float) -> set[str]:
        """What there is now; returns the keys of what is asked for differently."""
        entries = [entry for name in self._order if (entry := self._entries[name]).reservation.end > at]
        last = now + horizon_seconds
        self.resolved = tuple(entry.allowed for entry in entries)
        self.booked = {one.reservation.key: one for one in self.resolved if isinstance(one, Booked)}
        asks = {entry.ask.key: entry.ask for entry in entries if entry.ask is not None}
        far = {key: ask for key, ask in asks.items() if ask.start > last}
        within = {key: ask for key, ask in asks.items() if key not in far} if far else asks
        changed = {key for key, ask in within.items() if self.asks.get(key) is not ask}
        changed |= self.asks.keys() - within.keys()
        self.asks, self.beyond = within, frozenset(far)
        self.edges = frozenset(ask.start for ask in within.values()) | {ask.end for ask in within.values()}
        ends = min((entry.reservation.end.timestamp() for entry in entries), default=float("inf"))
        comes = min((ask.start for ask in far.values()), default=float("inf")) - horizon_seconds
        self._stable = (now, min(ends, comes))
        return changed


def _told_apart(reservations: Iterable[Reservation]) -> dict[str, Reservation]:
    """Reservations by a name of their own, though some have the same key."""
    given: dict[str, Reservation] = {}
    for one in reservations:
        name, number = one.key, 0
        while name in given:
            number += 1
            name = f"{one.key}\0{number}"
        given[name] = one
    return given


def _model_key(found: Booked | Refused) -> str | None:
    return found.model.key if isinstance(found, Booked) else found.model_key


def _as_served(one: Deployment | None) -> tuple[object, ...] | None:
    """What a reservation's needs depend on of what serves already."""
    return None if one is None else (one.dtype, one.footprint_bytes)
