"""Rows of a network's scores, beside published ones in the layout of the papers' tables.

Published figures are their authors', not measured here. They rest on their benchmark's protocol
(3DPW: 14 joints regressed from meshes), ours on that of `benchmarks.network`; a table names both.
"""

from __future__ import annotations

from ros2_pose.evaluation.benchmarks.network import Scores
from ros2_pose.evaluation.tables import Row

_PUBLISHED, _UNSURE = "†", "‡"
_NOTES = {_PUBLISHED: "published by its authors, not measured here",
          _UNSURE: "the same, but recalled: not yet compared with the paper"}
_NAN = float("nan")


# Headings of the tables, each with the field of `Scores` that stands below it in our rows.
_COLUMNS = {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "PVE": "pve", "PCK_rel": "pck_rel",
            "PCK_abs": "pck_abs", "AP_root_25": "ap_root_25"}


def _published(method: str, figures: tuple[float, ...],
               sure: bool = True) -> tuple[str, tuple[float, ...]]:
    """A method, marked as published or unsure, and its figures (NaN: unknown).

    sure: taken from the paper or its authors' code.
    """
    return f"{method} {_PUBLISHED if sure else _UNSURE}", figures


def _table(title: str, columns: tuple[str, ...],
           *methods: tuple[str, tuple[float, ...]]) -> list[Row]:
    """A table of the literature: dataset and protocol, some of _COLUMNS, and its rows."""
    return [Row(name, title, dict(zip(columns, figures, strict=True)))
            for name, figures in methods]


THREE_DPW = _table(
    "3DPW, test; published: 14 regressed joints, mm", ("MPJPE", "PA-MPJPE", "PVE"),
    _published("HMR 2018", (130.0, 76.7, _NAN), False),
    _published("SPIN 2019", (96.9, 59.2, 116), False),
    _published("ROMP 2021, trained on 3DPW", (76.7, 47.3, 93.4), False),
    _published("HybrIK 2021", (80.0, 48.8, _NAN), False),
    _published("HybrIK 2021, trained on 3DPW", (74.1, 45.0, _NAN), False),
    _published("DynaBOA 2021, adapts to the test", (65.5, 40.4, _NAN), False),
    _published("Tian, Gao and Tan 2023 (by its text 8.3 and about 5 less than the best it lists)",
               (_NAN, _NAN, _NAN)))

MUPOTS = _table(
    "MuPoTS-3D; published: PCK of 14 joints within 150 mm, mean of 20 sequences, all people; %",
    ("PCK_rel", "PCK_abs", "AP_root_25"),
    _published("Moon et al. 2019", (81.8, 31.5, 31.0)),
    _published("HMOR 2020", (82.0, 43.8, _NAN)),
    _published("SMAP 2020", (73.5, 35.4, _NAN)),
    _published("HDNet 2020, matched people only", (83.7, 35.2, _NAN)),
    _published("Cheng et al. 2021, video", (89.6, 48.0, _NAN), False),
    _published("DAS 2022", (82.7, 39.2, _NAN)),
    _published("VirtualPose 2022", (_NAN, 44.0, _NAN), False),
    _published("SAT-HMR 2025", (89.0, _NAN, _NAN), False))

PANOPTIC = _table(
    "CMU Panoptic, cameras 16 and 30; published: 15 joints, mean of four activities, mm",
    ("MPJPE",),
    _published("Benzine et al. 2019", (68.5,)),
    _published("HMOR 2020", (55.1,)),
    _published("SMAP 2020", (61.8,)),
    _published("DAS 2022", (53.8,)),
    _published("VirtualPose 2022", (58.9,), False),
    _published("SAT-HMR 2025, not trained on it", (84.2,), False))

# Table 1 of Tian, Gao and Tan 2023: its rows, and the change of MPJPE on 3DPW over the row before,
# mm, by their text, which does not contain the table's own figures.
ABLATION = {"direct multi-scale": _NAN, "FPN": -0.6, "FPN + correction": -0.7}

_MEASURED = "people measured"
_MEASURES = {
    "box AP": "ap", "box AP50": "ap50",
    "keypoints, mean error, % of the box's diagonal": "keypoint_error",
    "keypoints, median error, %": "keypoint_error_median",
    "uncertainty and error, Spearman": "uncertainty_rank",
    "within the 68 % ellipse": "coverage_68",
    "within the 95 % ellipse": "coverage_95",
    "NLL, nats, px": "nll",
    "MPJPE, mm": "mpjpe", "PA-MPJPE, mm": "pa_mpjpe", "PVE, mm": "pve",
    "mean pose, MPJPE, mm": "baseline_mpjpe",
    "mean pose, PA-MPJPE, mm": "baseline_pa_mpjpe",
    "MRPE, mm": "mrpe", "MRPE x, mm": "mrpe_x", "MRPE y, mm": "mrpe_y",
    "MRPE z, mm": "mrpe_z", "AP_root_25, %": "ap_root_25",
    "PCK_rel, all, %": "pck_rel", "PCK_rel, matched, %": "pck_rel_matched",
    "PCK_abs, all, %": "pck_abs", "PCK_abs, matched, %": "pck_abs_matched"}

_COUNTS = {"people matched": ("matched", "people"),
           "keypoints measured": ("keypoints_found", "keypoints"),
           "bodies measured": ("bodies_found", "bodies")}


def comparison(table: list[Row], scores: dict[str, Scores], protocol: str) -> list[Row]:
    """Published rows, and ours below them.

    Args:
        table: the published rows.
        scores: of our networks, by title.
        protocol: data and joints of our rows.
    """
    marks = {row.name.split()[-1] for row in table} | {_PUBLISHED}
    notes = "; ".join(f"{mark} {note}" for mark, note in _NOTES.items() if mark in marks)
    title = f"{table[0].protocol}; ours: {protocol} ({notes})"
    rows = [Row(row.name, title, {**row.values, _MEASURED: "-"}) for row in table]
    for name, ours in scores.items():
        values = {column: getattr(ours, _COLUMNS[column]) for column in table[0].values}
        rows.append(Row(name, title, values | {_MEASURED: _share(ours, "bodies measured")}))
    return rows


def ablation(scores: dict[str, Scores], protocol: str) -> list[Row]:
    """Table 1 of Tian et al. 2023, its rows in its order; rows without scores stay empty.

    Args:
        scores: by names of ABLATION.

    Raises: ValueError for another name.
    """
    if unknown := [name for name in scores if name not in ABLATION]:
        raise ValueError(f"{', '.join(unknown)}: not among {', '.join(ABLATION)}")
    rows, before = [], _NAN
    for name, published_change in ABLATION.items():
        ours = scores.get(name)
        mpjpe = ours.mpjpe if ours else _NAN
        rows.append(Row(name, f"{protocol} ({_PUBLISHED} {_NOTES[_PUBLISHED]})", {
            "MPJPE, mm": mpjpe, "PA-MPJPE, mm": ours.pa_mpjpe if ours else _NAN,
            "change, mm": mpjpe - before, f"change on 3DPW, mm {_PUBLISHED}": published_change,
            "keypoints, % of the box's diagonal": ours.keypoint_error if ours else _NAN,
            _MEASURED: _share(ours, "bodies measured") if ours else "-"}))
        before = mpjpe
    return rows


def all_scores(scores: dict[str, Scores], protocol: str) -> list[Row]:
    """All that was measured of each network."""
    return [Row(name, protocol,
                {measure: getattr(ours, field) for measure, field in _MEASURES.items()}
                | {count: _share(ours, count) for count in _COUNTS})
            for name, ours in scores.items()]


def _share(scores: Scores, name: str) -> str:
    part, whole = (getattr(scores, field) for field in _COUNTS[name])
    return f"{part} of {whole}"
