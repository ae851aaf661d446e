"""Scores as Markdown tables, in the layout of the papers' own: published rows beside ours.

Published figures are their authors', not measured here. They rest on their benchmark's protocol
(3DPW: 14 joints regressed from meshes), ours on that of `network`; a table names both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ros2_pose.evaluation.benchmarks.network import Scores

_PUBLISHED, _UNSURE = "†", "‡"
_NOTES = {_PUBLISHED: "published by its authors, not measured here",
          _UNSURE: "the same, but recalled: not yet compared with the paper"}
_NAN = float("nan")


class Published(NamedTuple):
    """A row of a benchmark's table; figures in the order of its columns, NaN where none is known.

    sure: whether figures were taken from the paper or its authors' code.
    """

    method: str
    figures: tuple[float, ...]
    sure: bool = True


class Benchmark(NamedTuple):
    """A table of the field: where and how figures were measured, and who has which.

    columns: headings, each with the field of `Scores` that stands below it in our rows.
    """

    title: str
    columns: dict[str, str]
    published: tuple[Published, ...]


THREE_DPW = Benchmark(
    "3DPW, test; published: 14 regressed joints, mm",
    {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "PVE": "pve"},
    (Published("HMR 2018", (130.0, 76.7, _NAN), False),
     Published("SPIN 2019", (96.9, 59.2, 116), False),
     Published("ROMP 2021, trained on 3DPW", (76.7, 47.3, 93.4), False),
     Published("HybrIK 2021", (80.0, 48.8, _NAN), False),
     Published("HybrIK 2021, trained on 3DPW", (74.1, 45.0, _NAN), False),
     Published("DynaBOA 2021, adapts to the test", (65.5, 40.4, _NAN), False),
     Published("Tian, Gao and Tan 2023 (by its text 8.3 and about 5 less than the best it lists)",
               (_NAN, _NAN, _NAN))))

MUPOTS = Benchmark(
    "MuPoTS-3D; published: PCK of 14 joints within 150 mm, mean of 20 sequences, all people; %",
    {"PCK_rel": "pck_rel", "PCK_abs": "pck_abs", "AP_root_25": "ap_root_25"},
    (Published("Moon et al. 2019", (81.8, 31.5, 31.0)),
     Published("HMOR 2020", (82.0, 43.8, _NAN)),
     Published("SMAP 2020", (73.5, 35.4, _NAN)),
     Published("HDNet 2020, matched people only", (83.7, 35.2, _NAN)),
     Published("Cheng et al. 2021, video", (89.6, 48.0, _NAN), False),
     Published("DAS 2022", (82.7, 39.2, _NAN)),
     Published("VirtualPose 2022", (_NAN, 44.0, _NAN), False),
     Published("SAT-HMR 2025", (89.0, _NAN, _NAN), False)))

PANOPTIC = Benchmark(
    "CMU Panoptic, cameras 16 and 30; published: 15 joints, mean of four activities, mm",
    {"MPJPE": "mpjpe"},
    (Published("Benzine et al. 2019", (68.5,)),
     Published("HMOR 2020", (55.1,)),
     Published("SMAP 2020", (61.8,)),
     Published("DAS 2022", (53.8,)),
     Published("VirtualPose 2022", (58.9,), False),
     Published("SAT-HMR 2025, not trained on it", (84.2,), False)))

# Table 1 of Tian, Gao and Tan 2023: what each row adds, and the mm of MPJPE that their text says it
# gains on 3DPW over the row before. The table's own figures are not in the text.
ABLATION = {"direct multi-scale": _NAN, "FPN": -0.6, "FPN + correction": -0.7}

_MEASURES = {
    "box AP": ("ap", ".3f"), "box AP50": ("ap50", ".3f"),
    "keypoints, mean error, % of the box's diagonal": ("keypoint_error", ".2f"),
    "keypoints, median error, %": ("keypoint_error_median", ".2f"),
    "uncertainty and error, Spearman": ("uncertainty_rank", ".2f"),
    "within the 68 % ellipse": ("coverage_68", ".2f"),
    "within the 95 % ellipse": ("coverage_95", ".2f"),
    "NLL, nats, px": ("nll", ".2f"),
    "MPJPE, mm": ("mpjpe", ".1f"), "PA-MPJPE, mm": ("pa_mpjpe", ".1f"), "PVE, mm": ("pve", ".1f"),
    "mean pose, MPJPE, mm": ("baseline_mpjpe", ".1f"),
    "mean pose, PA-MPJPE, mm": ("baseline_pa_mpjpe", ".1f"),
    "MRPE, mm": ("mrpe", ".0f"), "MRPE x": ("mrpe_x", ".0f"), "MRPE y": ("mrpe_y", ".0f"),
    "MRPE z": ("mrpe_z", ".0f"), "AP_root_25, %": ("ap_root_25", ".1f"),
    "PCK_rel, all, %": ("pck_rel", ".1f"), "PCK_rel, matched, %": ("pck_rel_matched", ".1f"),
    "PCK_abs, all, %": ("pck_abs", ".1f"), "PCK_abs, matched, %": ("pck_abs_matched", ".1f")}

_COUNTS = {"people matched": ("matched", "people"),
           "keypoints measured": ("keypoints_found", "keypoints"),
           "bodies measured": ("bodies_found", "bodies")}


def comparison(benchmark: Benchmark, rows: dict[str, Scores], protocol: str) -> str:
    """Published rows, and ours below them. protocol: data and joints of ours, for the title."""
    lines = [[f"{row.method} {_mark(row)}", *(_figure(value) for value in row.figures), "-"]
             for row in benchmark.published]
    lines += [[name, *(_figure(getattr(scores, field)) for field in benchmark.columns.values()),
               _share(scores, "bodies measured")] for name, scores in rows.items()]
    marks = {_PUBLISHED, *map(_mark, benchmark.published)}
    notes = "; ".join(f"{mark} {_NOTES[mark]}" for mark in _NOTES if mark in marks)
    head = ["method", *benchmark.columns, "people measured"]
    return f"{benchmark.title}; ours: {protocol}\n\n{markdown(head, lines)}\n\n{notes}"


def ablation(rows: dict[str, Scores], protocol: str) -> str:
    """Table 1 of Tian et al. 2023, its rows in its order; rows: by the names of ABLATION, those
    that are not there stay empty."""
    unknown = [name for name in rows if name not in ABLATION]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not among {', '.join(ABLATION)}")
    lines, before = [], _NAN
    for name, gain in ABLATION.items():
        scores = rows.get(name)
        mpjpe, pa_mpjpe, error = (getattr(scores, field, _NAN) for field in
                                  ("mpjpe", "pa_mpjpe", "keypoint_error"))
        lines.append([name, _figure(mpjpe), _figure(pa_mpjpe), _figure(mpjpe - before, "+.1f"),
                      _figure(gain, "+.1f"), _figure(error, ".2f"),
                      _share(scores, "bodies measured") if scores else "-"])
        before = mpjpe
    head = ["variant", "MPJPE, mm", "PA-MPJPE, mm", "change, mm", f"change on 3DPW {_PUBLISHED}",
            "keypoints, % of the box's diagonal", "people measured"]
    return f"{protocol}\n\n{markdown(head, lines)}\n\n{_PUBLISHED} {_NOTES[_PUBLISHED]}"


def all_scores(rows: dict[str, Scores], protocol: str) -> str:
    """Everything that was measured: a line for each measure, a column for each network."""
    lines = [[measure, *(_figure(getattr(scores, field), form) for scores in rows.values())]
             for measure, (field, form) in _MEASURES.items()]
    lines += [[name, *(_share(scores, name) for scores in rows.values())] for name in _COUNTS]
    return f"{protocol}\n\n{markdown(['measure', *rows], lines)}"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _figure(value: float, form: str = ".1f") -> str:
    return format(value, form) if math.isfinite(value) else "-"


def _mark(row: Published) -> str:
    return _PUBLISHED if row.sure else _UNSURE


def _share(scores: Scores, name: str) -> str:
    part, whole = (getattr(scores, field) for field in _COUNTS[name])
    return f"{part} of {whole}"
