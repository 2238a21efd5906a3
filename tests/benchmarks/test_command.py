"""The one command measures, writes its page and its plot, and reads back what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.placement.__main__ import arguments, cases, joined, main
from benchmarks.placement.instance import Setting
from benchmarks.placement.measure import POLICIES
from benchmarks.placement.report import PAGE, PLOT, Results
from benchmarks.placement.targets import targets


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    words = ["--quick", "--sizes", "4", "--families", "synthetic", "--seed", "1"]
    main([*words, "--docs", str(folder), "--json", str(folder / "rows.json")])
    return folder


def test_every_policy_is_measured(written: Path) -> None:
    results = Results.model_validate_json((written / "rows.json").read_text())
    measured = [(row.setting, row.policy) for row in results.rows]
    assert measured == [(setting, policy) for setting in Setting for policy in POLICIES[setting]]
    assert all(0 < row.share <= 1 for row in results.rows)
    assert all(row.seconds > 0 for row in results.rows)
    assert results.plans[4]["full_plan_seconds"] > 0


def test_page_and_plot_are_written(written: Path) -> None:
    page = (written / PAGE).read_text()
    assert PLOT in page
    assert "synthetic, 4 nodes" in page
    assert all(policy in page for policies in POLICIES.values() for policy in policies)
    assert (written / PLOT).read_text().startswith("<?xml")


def test_rows_that_were_written_make_the_same_page(written: Path, tmp_path: Path) -> None:
    main(["--read", str(written / "rows.json"), "--docs", str(tmp_path)])
    assert (tmp_path / PAGE).read_text() == (written / PAGE).read_text()
    assert (tmp_path / PLOT).read_bytes() == (written / PLOT).read_bytes()


def test_rows_of_several_runs_are_joined(written: Path, tmp_path: Path) -> None:
    one = Results.model_validate_json((written / "rows.json").read_text())
    other = one.model_copy(update={"rows": one.rows[:1], "plans": {9: one.plans[4]}})
    (tmp_path / "other.json").write_text(other.model_dump_json())
    both = joined([written / "rows.json", tmp_path / "other.json"])
    assert both.rows == (*one.rows, one.rows[0])
    assert set(both.plans) == {4, 9}


def test_rows_of_traces_alone_are_not_drawn(written: Path, tmp_path: Path) -> None:
    one = Results.model_validate_json((written / "rows.json").read_text())
    traces = tuple(row.model_copy(update={"family": "openb"}) for row in one.rows)
    (tmp_path / "rows.json").write_text(one.model_copy(update={"rows": traces}).model_dump_json())
    main(["--read", str(tmp_path / "rows.json"), "--docs", str(tmp_path)])
    assert PLOT not in (tmp_path / PAGE).read_text()
    assert not (tmp_path / PLOT).exists()


def test_targets_are_met_or_missed_by_what_was_measured(written: Path) -> None:
    results = Results.model_validate_json((written / "rows.json").read_text())
    ours = next(row for row in results.rows if row.policy == "ours" and row.setting is Setting.PROMISED)
    for share, said in ((0.80, "met"), (0.78, "**missed**")):
        row = ours.model_copy(update={"nodes": 10, "load": 1.0, "share": share})
        assert targets([row], {})[0] == ("promised, 10 nodes, load 100%", "> 79%", f"{share:.1%}", said)
    broken = ours.model_copy(update={"withdrawn": 1})
    assert ("promises broken; running models moved", "0; 0", "1; 0", "**missed**") in targets([broken], {})


def test_there_are_as_many_cases_as_asked_for() -> None:
    asked = arguments(["--sizes", "10,1000", "--loads", "70,100", "--repeats", "2", "--seed", "7"])
    found = list(cases(asked))
    assert ("synthetic", 1000, 0.7, 8) in found
    assert not any(family != "synthetic" and nodes == 1000 for family, nodes, _, _ in found)
    assert len(found) == 2 * 2 * 2 + 2 * (1 * 2 * 2)


def test_an_unknown_family_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--families", "synthetic,borg"])
    assert "--families: borg; there are synthetic, openb, philly" in capsys.readouterr().err
