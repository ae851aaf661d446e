"""The harness of the benchmarks: what runs, what is skipped, and how results are written."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ros2_pose.evaluation import harness, plots
from ros2_pose.evaluation.__main__ import BENCHMARKS
from ros2_pose.evaluation.harness import Benchmark, Curve, EvaluationError, Options, Row
from ros2_pose.evaluation.tables import tables


def _measure(options):
    yield Row("ours", "made up", {"error, mm": 12.345, "people": 3}, "10 mm")
    yield Row("theirs", "made up", {"error, mm": float("nan"), "people": np.int64(0)})
    for figure in plots.FIGURES:
        names = ["hip", "left_knee"] if figure in plots._BARS else [0.25, 0.75]
        yield Curve(figure, "ours", names, [0.2, np.float64(0.8)])


def _broken(options):
    raise EvaluationError("pip install something")
    yield


_SOME = {"a/one": Benchmark(_measure, ("file.npz",), ("people",)),
         "a/two": Benchmark(_measure, ("--pets",), ("pets",)),
         "b": Benchmark(_broken)}


@pytest.fixture
def options(tmp_path):
    (tmp_path / "file.npz").touch()
    return Options(tmp_path)


def test_what_cannot_run_is_skipped_and_says_why(options, tmp_path):
    results = harness.run(_SOME, options)
    assert len(results["a/one"]) == 2 + len(plots.FIGURES)
    assert results["a/two"][0].protocol.startswith("skipped: needs --pets")
    assert results["b"] == [Row("b", "skipped: pip install something")]
    gone = harness.run(_SOME, replace(options, data=tmp_path / "none", pets=tmp_path))
    assert f"no file.npz in {tmp_path / 'none'}" in gone["a/one"][0].protocol
    assert len(gone["a/two"]) > 2


def test_benchmarks_are_chosen_by_name_and_group():
    assert list(harness.select(_SOME, "a")) == ["a/one", "a/two"]
    assert list(harness.select(_SOME, "b,a/two")) == ["a/two", "b"]
    with pytest.raises(EvaluationError, match="c: not among a/one, a/two, b"):
        harness.select(_SOME, "a,c")


def test_rows_of_one_protocol_share_a_table():
    rows = [Row("x", "first", {"error, mm": 1.0, "n": 7}), Row("y", "first", {"error, mm": 1234.5,
                                                                         "n": 8}, "5 mm"),
            Row("z", "second", {"share": "3 of 4"}), Row("w", "skipped: no data")]
    assert tables(rows) == """first

|  | error, mm | n | target |
| --- | --- | --- | --- |
| x | 1.00 | 7 |  |
| y | 1234 | 8 | 5 mm |

second

|  | share |
| --- | --- |
| z | 3 of 4 |

w: skipped: no data"""


def test_a_table_with_many_metrics_has_a_line_for_each():
    row = Row("x", "many", {f"m{number}": number for number in range(13)})
    lines = tables([row, row._replace(name="y")]).splitlines()[2:]
    assert lines[0] == "|  | x | y |" and lines[-1] == "| m12 | 12 | 12 |" and len(lines) == 15


def test_json_has_all_rows_and_curves_and_null_for_nan(options):
    content = json.loads(harness.as_json(harness.run(_SOME, options)))
    assert [row["name"] for row in content["a/one"]["rows"]] == ["ours", "theirs"]
    assert content["a/one"]["rows"][0]["values"] == {"error, mm": 12.345, "people": 3}
    assert content["a/one"]["rows"][1]["values"] == {"error, mm": None, "people": 0}
    assert content["a/one"]["curves"][0]["y"] == [0.2, 0.8]
    assert content["b"]["rows"][0]["protocol"] == "skipped: pip install something"


def test_the_command_writes_tables_and_json(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluation", "--data", str(tmp_path), "--rows", "a/one",
                                     "--people", "5", "--json", str(tmp_path / "out.json")])
    harness.main(_SOME, "Made up.")
    assert "## a/one\n\nmade up\n\n|  | error, mm |" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out.json").read_text())) == ["a/one"]


def test_options_that_no_benchmark_uses_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluation", "--stride", "5"])
    with pytest.raises(SystemExit):
        harness.main(_SOME, "Made up.")
    assert "--stride" in capsys.readouterr().err


def test_all_benchmarks_name_what_they_lack_and_what_they_use(tmp_path):
    known = {field.name for field in harness.fields(Options)}
    assert {"body/fit", "body/latency", "tracking/mupots", "multiview/crowd", "calibration",
            "keypoints"} <= set(BENCHMARKS)
    for benchmark in BENCHMARKS.values():
        assert known.issuperset(benchmark.options)
        if benchmark.needs:
            assert harness.missing(benchmark, Options(tmp_path))


def test_plots_without_matplotlib_name_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(EvaluationError, match="pip install matplotlib"):
        plots.draw([], tmp_path)


def test_each_figure_is_drawn(options, tmp_path):
    pytest.importorskip("matplotlib")
    curves = [one for one in harness.run(_SOME, options)["a/one"] if isinstance(one, Curve)]
    paths = plots.draw(curves, tmp_path / "plots")
    assert [path.stem for path in paths] == list(plots.FIGURES)
    for path in paths:
        image = cv2.imread(str(path))
        assert image is not None and np.ptp(image) > 200
    assert plots.draw(curves[:1], tmp_path / "one") == [tmp_path / "one" / "reliability.png"]


def test_reliability_of_right_covariances_is_the_diagonal():
    error = np.random.default_rng(0).normal(size=(4000, 3)) * 2
    curve = plots.reliability("right", error, np.tile(4 * np.eye(3), (4000, 1, 1)))
    assert curve.y == pytest.approx(curve.x, abs=0.03)
