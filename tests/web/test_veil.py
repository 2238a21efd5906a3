"""What readers may not see, wherever it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calendars.reservation import Reservation
from scheduler.board import View
from scheduler.store.history import FILE, Recorder
from scheduler.store.records import Change, Parked, PromiseRecord
from scheduler.types import DeploymentStatus, Model
from scheduler.web.past import history_shown, promises_shown
from scheduler.web.shown import Shown
from scheduler.web.veil import PRIVATE_BOOKING, PRIVATE_MODEL, Sight, Veil
from tests.scheduler.builders import NOON, cluster, gpus
from tests.web.desk import NOW, book, desk_for, seen

HERE = Sight(people=True)
ELSEWHERE = Sight()
OPERATOR = Sight(everything=True, people=True)
SECRET, PUBLIC = "secret-lab/unpublished-9b", "google/gemma-3-27b-it"


def shown(view: View, sight: Sight = HERE, *records: PromiseRecord) -> Shown:
    return Shown(view, Veil(view, sight, records), 1, "http://gateway", "lab")


def everything(found: Shown) -> str:
    """All that is shown of a view, as one text."""
    parts = [*found.bookings(), *found.models(), *found.nodes(), found.plan_shown(), found.state()]
    return "\n".join(one.model_dump_json() for one in parts)


def private(start: float = -1, end: float = 5, **more: object) -> Reservation:
    return book("hidden title", SECRET, start, end, "rosalind@example.org", private=True, **more)


def test_a_private_booking_is_there_without_a_name() -> None:
    found = shown(seen([private(), book("gemma", PUBLIC, -1, 5)]))
    (one,) = [each for each in found.bookings() if each.private]
    assert (one.title, one.model, one.owner, one.asks_for, one.calendar, one.book) == (
        PRIVATE_BOOKING, PRIVATE_MODEL, None, "", "", None
    )  # fmt: skip
    assert one.nodes and one.start == NOON - timedelta(hours=1)
    for word in ("hidden title", "unpublished", "rosalind"):
        assert word not in everything(found)


def test_the_operator_sees_it() -> None:
    text = everything(shown(seen([private()]), OPERATOR))
    assert "hidden title" in text and SECRET in text and "rosalind" in text


def test_a_model_that_others_booked_as_well_keeps_its_name() -> None:
    bookings = [book("mine", PUBLIC, -1, 5, private=True), book("ours", PUBLIC, -1, 5)]
    found = shown(seen(bookings))
    assert [one.name for one in found.models()] == [PUBLIC]
    assert "mine" not in everything(found)


def test_a_title_that_others_have_as_well_keeps_it_for_them() -> None:
    bookings = [book("review", SECRET, -1, 5, private=True), book("review", PUBLIC, 0, 5)]
    assert [one.title for one in shown(seen(bookings)).bookings()] == [PRIVATE_BOOKING, "review"]


def test_why_a_private_booking_is_refused_does_not_name_it() -> None:
    view = seen([private(gpus=8), book("gemma", PUBLIC, -1, 5)], cluster(gpus("gpu-a", 4, 80)))
    found = shown(view)
    (one,) = [each for each in found.bookings() if each.private]
    assert one.state == "refused" and one.why.words and not one.why.offers and not one.why.remedy
    assert "unpublished" not in everything(found)


def test_who_is_in_the_way_is_not_named_if_private() -> None:
    bookings = [private(gpus=4), book("gemma", PUBLIC, 0, 3, booked=-1, gpus=4)]
    found = shown(seen(bookings, cluster(gpus("gpu-a", 4, 80))))
    (one,) = [each for each in found.bookings() if each.state == "refused"]
    assert any("“private booking”" in line for line in one.why.more)
    assert any(PRIVATE_MODEL in offer.words for offer in one.why.offers)
    assert "hidden title" not in everything(found) and "unpublished" not in everything(found)


def test_what_is_parked_or_has_failed_is_not_named_if_private() -> None:
    view = seen([private()])
    parked = Parked(
        model_key=Model(repo_id=SECRET).key,
        error=f"OSError: {SECRET} is not there",
        since=NOW,
        tries=1,
        retry_at=NOW,
        signature="s",
    )
    assert view.observed is not None
    failed = [
        one.model_copy(update={"status": DeploymentStatus.FAILED, "message": f"no {SECRET}"})
        for one in view.observed.deployments
    ]
    view = replace(
        view,
        beat=view.beat.model_copy(update={"parked": (parked,), "problem": f"{SECRET} cannot be loaded."}),
        observed=view.observed.model_copy(update={"deployments": tuple(failed)}),
    )
    text = everything(shown(view))
    assert "unpublished" not in text and f"{PRIVATE_MODEL} failed to load once" in text


def test_what_a_private_booking_left_behind_is_not_named_either() -> None:
    """Its booking is over and in no reading any more; the model still lingers."""
    view = seen([private()])
    assert view.plan is not None
    over = replace(view, readings=(), plan=view.plan.model_copy(update={"verdicts": ()}))
    record = PromiseRecord(
        calendar="lab", event="other", title="hidden title", model=SECRET, start=NOON, end=NOW, private=True
    )
    assert "unpublished" not in everything(shown(over, HERE, record))


def test_elsewhere_people_and_their_words_are_not_shown() -> None:
    bookings = [
        book("Ada's seminar", PUBLIC, -1, 5, "ada@example.org", gpus=4),
        book("for grace@example.org", "Qwen/Qwen3-32B", 0, 3, "grace@example.org", booked=-1, gpus=4),
    ]
    found = shown(seen(bookings, cluster(gpus("gpu-a", 4, 80))), ELSEWHERE)
    assert [one.title for one in found.bookings()] == [PUBLIC, "Qwen/Qwen3-32B"]
    text = everything(found)
    assert "Ada" not in text and "@example.org" not in text
    assert f"“{PUBLIC}”" in text, "what is in the way is named by its model"


def test_names_are_replaced_as_whole_words() -> None:
    view = seen([book("phi", SECRET, -1, 5, private=True)])
    veil = Veil(view, HERE)
    assert veil.words("phi waits for phi, not for lab/phi or phi-3 or Sophia.") == (
        "private booking waits for private booking, not for lab/phi or phi-3 or Sophia."
    )
    assert veil.words(f"deploy {SECRET} gpu-a") == f"deploy {PRIVATE_MODEL} gpu-a"


@given(
    title=st.text(min_size=4, max_size=60).filter(lambda text: text.strip() == text),
    sight=st.sampled_from([HERE, ELSEWHERE]),
)
def test_whatever_a_private_booking_is_called_it_is_not_told(title: str, sight: Sight) -> None:
    unusual = f"☂{title}☂"
    bookings = [
        book(unusual, SECRET, -1, 5, f"{len(title)}rosalind@example.org", private=True, gpus=4),
        book("gemma", PUBLIC, 0, 3, booked=-1, gpus=4),
    ]
    text = everything(shown(seen(bookings, cluster(gpus("gpu-a", 4, 80))), sight))
    for secret in ("☂", "unpublished", "rosalind"):
        assert secret not in text


@pytest.mark.parametrize("sight", [HERE, ELSEWHERE, OPERATOR])
def test_the_past_of_a_private_booking(tmp_path: Path, sight: Sight) -> None:
    history = Recorder(tmp_path / FILE, keep_days=9)
    key = Model(repo_id=SECRET).key
    names = {"calendar": "lab", "event": "e", "title": "hidden title", "model": SECRET, "private": True}
    history.promised(
        [PromiseRecord.model_validate({**names, "start": NOON, "end": NOW, "owner": "rosalind@example.org",
                                       "state": "broken", "broken_why": f"{SECRET} could not be loaded."})]
    )  # fmt: skip
    history.said([Change.model_validate({**names, "at": NOON, "state": "refused", "text": f"No {SECRET}."})])
    history.planned(NOON, "1 to deploy.", [f"deploy {SECRET} gpu-a"], "failed", f"{SECRET} is too large")
    history.loaded(NOON, key, "gpu-a", "gpu", "cold", 4.0)
    history.close()
    desk = desk_for(tmp_path, seen([]))
    past = desk.past()
    veil = desk.shown(sight, past).veil
    told = promises_shown(past, veil, NOW).model_dump_json() + history_shown(past, veil).model_dump_json()
    for secret in ("hidden title", "unpublished", "rosalind"):
        assert (secret in told) == sight.everything, secret
    assert '"broken":1' in told
