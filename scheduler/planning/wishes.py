"""What is booked, as planning needs it; worked out anew only where what it is made from is another."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from calendars.reservation import Dtype, Reading, Reservation
from scheduler.cluster.node import Cluster
from scheduler.planning.footprint import Loads
from scheduler.planning.holds import Ask
from scheduler.planning.needs import Need
from scheduler.planning.rules import keep_to
from scheduler.planning.running import Running
from scheduler.planning.targets import Booked, Refused, resolve
from scheduler.types import Catalog, Checkpoint, Deployment, Rules, UnknownSize

FEW = 100
"""Where more are others, everything is gone through."""
FOREVER = float("inf")
LATEST = datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp()
"""The last instant that is a date, too: of later microseconds seconds are rounded to the year 10,000."""
LAST_NAME = "\U0010ffff"
Place = tuple[datetime, str]
"""The start of a reservation and its name, in which order they are told."""
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
    ``given`` is all that was read, with what has ended.
    """

    def __init__(self) -> None:
        self.given: dict[str, Reservation] = {}
        self.resolved: tuple[Booked | Refused, ...] = ()
        self.booked: dict[str, Booked] = {}
        self.asks: dict[str, Ask] = {}
        self.beyond: frozenset[str] = frozenset()
        self._edges: Counter[float] = Counter()
        self._basis: Basis | None = None
        self._served: dict[str, tuple[Dtype, int]] = {}
        """How what runs was reckoned, by model key: its precision and what it needs."""
        self._reach = -1.0
        self._begun: frozenset[str] = frozenset()
        self._cluster: Cluster | None = None
        self._entries: dict[str, _Entry] = {}
        self._order: list[Place] = []
        self._of_model: defaultdict[str | None, set[str]] = defaultdict(set)
        self._resolved: list[Booked | Refused] = []
        self._places: list[Place] = []
        self._shown: dict[str, tuple[Place, str, Ask | None]] = {}
        self._names: dict[int, str] = {}
        """Of what is given, by the identity of the object."""
        self._shown_names: list[str] = []
        self._at = datetime.max.replace(tzinfo=UTC)
        self.altered: set[str] | None = None
        """The names of what is another than the last time; None where it was all gone through."""
        self._ambiguous = False
        self._stable: tuple[float, float] = (0.0, 0.0)
        """Between these instants nothing ends or comes within the horizon."""

    @property
    def edges(self) -> Collection[float]:
        """The instants at which something of what is asked for starts or ends."""
        return self._edges.keys()

    @property
    def names(self) -> list[str]:
        """By which each of ``resolved`` is known here: its key, unless others have the same."""
        return self._shown_names

    def one(self, name: str) -> Booked | Refused | None:
        """The one of ``resolved`` that has a name."""
        return self._entries[name].allowed if name in self._shown else None

    def begun_since(self, instant: float) -> set[str]:
        """Those that began after an instant, until now."""
        since = datetime.fromtimestamp(instant, UTC)
        first = bisect_right(self._places, (since, LAST_NAME))
        last = bisect_right(self._places, (self._at, LAST_NAME))
        return {name for _, name in self._places[first:last]}

    def update(
        self,
        readings: Iterable[Reading],
        basis: Basis,
        cluster: Cluster,
        running: Running,
        at: datetime,
        horizon_seconds: float,
    ) -> set[str]:
        """Take in what is wanted now; returns the keys of what is asked for differently, came or went."""
        ambiguous = self._ambiguous
        gone, todo = self._read(readings)
        ambiguous |= self._ambiguous
        todo |= self._concerned(basis, running)
        for name in gone:
            self._remove(name)
        redone = self._resolve(todo, basis, running)
        redone |= self._obey(basis.rules, cluster, running.by_identity.values(), bool(redone or gone))
        redone |= self._ask(basis, redone)
        self._basis = basis
        now, reach = at.timestamp(), self._reach
        self._reach = horizon_seconds
        altered = redone | set(gone)
        self._at, self.altered = at, altered
        stable = reach == horizon_seconds and self._stable[0] <= now < self._stable[1]
        if not stable or len(altered) > FEW or (altered and ambiguous):
            return self._collect(at, now)
        changed = {key for name in altered for key in self._replace(name, now)}
        if altered:
            self.resolved = tuple(self._resolved)
        return changed

    # What was read

    def _read(self, readings: Iterable[Reading]) -> tuple[list[str], set[str]]:
        """What is gone, and what is new or another, by its name here: its key, unless that is not its own."""
        read = [one for reading in readings for one in reading.reservations]
        # Most are the very same objects as the last time.
        there = set(map(id, read))
        fresh, gone = there - self._names.keys(), self._names.keys() - there
        new = {one.key: one for one in read if id(one) in fresh} if fresh else {}
        left = {self._names[number] for number in gone}
        before = {name: self.given[name] for name in left}
        if (
            self._ambiguous
            or len(there) < len(read)
            or len(new) < len(fresh)
            or new.keys() & (self.given.keys() - left)
        ):
            before, self.given = self.given, {}
            new = _told_apart(read)
            left, self._names = set(before), {}
            self._ambiguous = new.keys() != {one.key for one in read}
        todo = {name for name, one in new.items() if name not in before or before[name] != one}
        for number in gone & self._names.keys():
            del self._names[number]
        for name in left:
            self.given.pop(name, None)
        self.given |= new
        self._names |= {id(one): name for name, one in new.items()}
        gone_names = [name for name in left if name not in new]
        if len(todo) + len(gone_names) > FEW:
            self._order = sorted((one.start, name) for name, one in self.given.items())
        else:
            for name in (*gone_names, *(name for name in todo if name in before)):
                del self._order[bisect_left(self._order, (before[name].start, name))]
            for name in todo:
                insort(self._order, (self.given[name].start, name))
        return gone_names, todo

    def _concerned(self, basis: Basis, running: Running) -> set[str]:
        """What is not new, and must be looked at again for what is known of models, or runs, by now."""
        known = self._basis
        models = {model for model in {model for model, _ in running.changed} if self._note(model, running)}
        if known is None or known.catalog != basis.catalog or known.loads.sizing != basis.loads.sizing:
            return set(self.given)
        old, new = known.checkpoints, basis.checkpoints
        if old is not new and old != new:
            models |= {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        found = {name for key in models for name in self._of_model.get(key, ())}
        return found & self.given.keys()

    def _note(self, model: str, running: Running) -> bool:
        """Note how a model runs; whether that is otherwise than before."""
        before, one = self._served.pop(model, None), running.of_model(model)
        if one is not None:
            self._served[model] = (one.dtype, one.footprint_bytes)
        return self._served.get(model) != before

    def _remove(self, name: str) -> None:
        if (entry := self._entries.pop(name, None)) is not None:
            self._of_model[_model_key(entry.found)].discard(name)

    # What comes of it

    def _resolve(self, names: Collection[str], basis: Basis, running: Running) -> set[str]:
        done = set()
        for name in names:
            one = self.given[name]
            found = resolve(one, basis.catalog, basis.checkpoints, basis.loads.sizing, running)
            known = self._entries.get(name)
            if known is not None and known.found == found:
                continue
            self._remove(name)
            self._entries[name] = _Entry(one, found, found, known.ask if known else None)
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
            allowed = [self._entries[name].found for _, name in self._order]
        else:
            begun = frozenset(key for one in deployments for key in one.reservations)
            if same and not redone and begun == self._begun and cluster == self._cluster:
                return set()
            self._begun, self._cluster = begun, cluster
            allowed = keep_to(rules, [self._entries[name].found for _, name in self._order], cluster, begun)
        done = set()
        for (_, name), one in zip(self._order, allowed, strict=True):
            entry = self._entries[name]
            if entry.allowed is not one and entry.allowed != one:
                entry.allowed, entry.ask = one, None
                done.add(name)
        return done

    def _ask(self, basis: Basis, redone: set[str]) -> set[str]:
        loads = basis.loads
        names: Iterable[str] = redone
        if self._basis is None or self._basis.loads != loads:
            names = self._entries
        done = set()
        for name in names:
            entry = self._entries[name]
            one = entry.allowed
            if isinstance(one, Booked):
                ask = ask_of(one, loads.longest_seconds(one.model.key, one.footprint_bytes))
                if ask != entry.ask:
                    entry.ask = ask
                    done.add(name)
            else:
                entry.ask = None
        return done

    def _collect(self, at: datetime, now: float) -> set[str]:
        """What there is now; returns the keys of what is asked for differently."""
        self.altered = None
        self._places = [place for place in self._order if self.given[place[1]].end > at]
        entries = [self._entries[name] for _, name in self._places]
        last = now + self._reach
        self._resolved = [entry.allowed for entry in entries]
        self.resolved = tuple(self._resolved)
        self._shown_names = [name for _, name in self._places]
        self._shown.clear()
        for place, entry in zip(self._places, entries, strict=True):
            self._show(place, entry)
        self.booked = {one.reservation.key: one for one in self._resolved if isinstance(one, Booked)}
        asks = {entry.ask.key: entry.ask for entry in entries if entry.ask is not None}
        far = {key: ask for key, ask in asks.items() if ask.start > last}
        within = {key: ask for key, ask in asks.items() if key not in far} if far else asks
        changed = {key for key, ask in within.items() if self.asks.get(key) is not ask}
        changed |= self.asks.keys() - within.keys()
        self.asks, self.beyond = within, frozenset(far)
        self._edges = Counter(instant for ask in within.values() for instant in (ask.start, ask.end))
        ends = min((entry.reservation.end.timestamp() for entry in entries), default=FOREVER)
        comes = min((ask.start for ask in far.values()), default=FOREVER) - self._reach
        self._stable = (now, min(ends, comes))
        return changed

    def _replace(self, name: str, now: float) -> set[str]:
        """The same for one reservation that came, went or is another."""
        shown, entry = self._shown.pop(name, None), self._entries.get(name)
        before = after = None
        key = name
        if shown is not None:
            place, key, before = shown
            index = bisect_left(self._places, place)
            del self._places[index], self._resolved[index], self._shown_names[index]
            self.booked.pop(key, None)
            self.beyond -= {key}
            if self.asks.pop(key, None) is None:
                before = None
        if entry is not None and (end := entry.reservation.end.timestamp()) > now:
            index = bisect_left(self._places, (entry.reservation.start, name))
            self._places.insert(index, (entry.reservation.start, name))
            self._resolved.insert(index, entry.allowed)
            self._shown_names.insert(index, name)
            self._show(self._places[index], entry)
            if isinstance(entry.allowed, Booked):
                self.booked[key] = entry.allowed
            comes = FOREVER
            if entry.ask is not None and entry.ask.start > now + self._reach:
                self.beyond |= {key}
                comes = entry.ask.start - self._reach
            elif entry.ask is not None:
                self.asks[key] = after = entry.ask
            self._stable = (self._stable[0], min(self._stable[1], end, comes))
        for ask, more in ((before, -1), (after, 1)):
            for instant in (ask.start, ask.end) if ask is not None else ():
                self._edges[instant] += more
                if not self._edges[instant]:
                    del self._edges[instant]
        return set() if before is after else {key}

    def _show(self, place: Place, entry: _Entry) -> None:
        self._shown[place[1]] = (place, entry.reservation.key, entry.ask)


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


def need_of(one: Booked) -> Need:
    """What a replica of a booking takes."""
    return Need(one.footprint_bytes, one.gpus, one.accelerator)


def ask_of(one: Booked, lead_seconds: float = 0.0) -> Ask:
    """A booking as the book sees it."""
    reservation = one.reservation
    return Ask(
        key=reservation.key,
        model=one.model.key,
        need=need_of(one),
        replicas=one.replicas,
        start=reservation.start.timestamp(),
        end=min(reservation.end.timestamp(), LATEST),
        lead=lead_seconds,
        priority=reservation.request.priority,
        booked_at=reservation.booked_at.timestamp(),
    )
