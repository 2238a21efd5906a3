"""Where bars stand, and what becomes of the past."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.web.models import Zoom
from scheduler.web.timeline import Bar, Timeline, _lanes, timeline
from scheduler.web.veil import Sight
from tests.scheduler.builders import NOON, cluster, gpus
from tests.web.desk import NOW, book, desk_for, remember, seen, week

EVERYTHING = Sight(everything=True, people=True, zone=ZoneInfo("Europe/Berlin"))
HOUR = timedelta(hours=1)


def drawn(folder: Path, bookings: list, zoom: Zoom = "week", sight: Sight = EVERYTHING) -> Timeline:  # type: ignore[type-arg]
    desk = desk_for(folder, seen(bookings))
    past = desk.past()
    shown = desk.shown(sight, past)
    return timeline(shown, shown.bookings(), shown.nodes(), past, zoom)


def bars(found: Timeline, row: str) -> dict[str, Bar]:
    return {bar.label: bar for one in found.rows if one.name == row for bar in one.bars}


def test_replicas_that_are_together_are_counted(tmp_path: Path) -> None:
    found = drawn(tmp_path, week())
    (bar,) = (one for row in found.rows for one in row.bars if one.label.startswith("gpt2 for"))
    assert bar.label == "gpt2 for the tutorial x4"
    assert bar.says.endswith(", 4 replicas")


def test_past_day_to_next_week(tmp_path: Path) -> None:
    found = drawn(tmp_path, [])
    assert (found.start, found.end) == (NOW - timedelta(days=1), NOW + timedelta(days=7))
    assert found.now == 12.5
    assert [tick.label for tick in found.ticks] == [
        "Mon 2 Mar", "Tue 3 Mar", "Wed 4 Mar", "Thu 5 Mar", "Fri 6 Mar", "Sat 7 Mar", "Sun 8 Mar", "Mon 9 Mar"
    ]  # fmt: skip


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns", "Europe/Berlin", "UTC"])
def test_lines_stand_at_full_hours_of_the_readers_clock(tmp_path: Path, zone: str) -> None:
    found = drawn(tmp_path, [], "day", Sight(zone=ZoneInfo(zone)))
    assert len(found.ticks) >= 7
    assert all(tick.major or tick.label.endswith(":00") for tick in found.ticks)


def test_a_booking_begins_where_it_began_and_takes_as_many_lanes_as_devices(tmp_path: Path) -> None:
    found = drawn(tmp_path, week())
    llama = bars(found, "gpu-a")["Llama-70B for the steering seminar"]
    assert (llama.start, llama.end, llama.state) == (NOON - 5 * HOUR, NOON + 6 * HOUR, "serving")
    assert llama.lanes == 2 and llama.devices == 2
    whole = bars(found, "gpu-b")["Qwen3-32B, 8 GPUs each"]
    assert (whole.state, whole.lanes) == ("booked", 8)
    assert whole.loads_from is not None and whole.loads_from < whole.start
    assert whole.loads_left < whole.left and whole.loads_width > 0


def test_replicas_on_one_node_are_one_bar(tmp_path: Path) -> None:
    found = drawn(tmp_path, [book("gpt2", "openai-community/gpt2", -1, 5, gpus=1, replicas=3)])
    (bar,) = [bar for row in found.rows for bar in row.bars]
    assert (bar.lanes, bar.devices) == (3, 3)


def test_what_cannot_be_met_has_a_row_of_its_own(tmp_path: Path) -> None:
    found = drawn(tmp_path, week())
    assert set(bars(found, "Cannot be met")) == {"DeepSeek-V3 red team", "Llama-70B, all of a node"}
    assert found.rows[-1].name == "Cannot be met"


def test_the_past_comes_from_what_was_carried_out(tmp_path: Path) -> None:
    remember(tmp_path)
    found = bars(drawn(tmp_path, week()), "gpu-b") | bars(drawn(tmp_path, week()), "gpu-old")
    broken, late = found["gpt-oss-120b"], found["gpt2"]
    assert (broken.state, broken.start, broken.end) == ("was-broken", NOW - 11 * HOUR, NOW - 9 * HOUR)
    assert (late.state, late.target[:2]) == ("was-late", "p-")
    # what was deployed and is still there is drawn as what it is now, once
    llama = [one for one in bars(drawn(tmp_path, week()), "gpu-a").values() if "Llama" in one.says]
    assert [one.state for one in llama if one.start < NOW] == ["serving"]


def test_what_was_there_before_the_span_is_drawn_from_its_edge(
    tmp_path: Path,
) -> None:
    remember(tmp_path)
    found = bars(drawn(tmp_path, week()), "gpu-old")["unpublished-9b"]
    assert found.left == 0 and found.start == NOW - timedelta(days=1)


def test_a_node_that_is_gone_keeps_its_row_for_its_past(tmp_path: Path) -> None:
    remember(tmp_path)
    desk = desk_for(tmp_path, seen([], cluster(gpus("gpu-a", 8, 80))))
    past = desk.past()
    shown = desk.shown(EVERYTHING, past)
    rows = {row.name: row for row in timeline(shown, (), shown.nodes(), past, "week").rows}
    assert rows["gpu-b"].node is None and rows["gpu-b"].bars


def test_in_a_narrow_span_only_what_reaches_into_it_is_drawn(tmp_path: Path) -> None:
    labels = {bar.label for row in drawn(tmp_path, week(), "day").rows for bar in row.bars}
    assert "gpt-oss-120b evaluation" in labels and "pythia-12b scaling laws" not in labels


times = st.tuples(st.integers(0, 90), st.integers(1, 10), st.sampled_from([0.2, 1.0, 2.0, 8.0]))


@given(st.lists(times, max_size=30))
def test_no_two_bars_stand_in_each_others_way(spans: list[tuple[int, int, float]]) -> None:
    made = [
        Bar(str(number), "booked", NOON, NOON, devices=devices, left=start, width=width, loads_left=start)
        for number, (start, width, devices) in enumerate(spans)
    ]
    laid, lanes = _lanes(made)
    assert len(laid) == len(made)
    for number, one in enumerate(laid):
        assert one.lane + one.lanes <= lanes and one.lanes == max(1, int(one.devices))
        for other in laid[:number]:
            apart = one.left >= other.left + other.width or other.left >= one.left + one.width
            beside = one.lane >= other.lane + other.lanes or other.lane >= one.lane + one.lanes
            assert apart or beside


@pytest.mark.parametrize("zoom", ["day", "3days", "week"])
def test_nothing_reaches_beyond_the_edges(tmp_path: Path, zoom: Zoom) -> None:
    remember(tmp_path)
    for row in drawn(tmp_path, week(), zoom).rows:
        for bar in row.bars:
            assert 0 <= bar.loads_left <= bar.left and bar.left + bar.width <= 100.001, bar
