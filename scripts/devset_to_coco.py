"""Convert index.json of a development set into a COCO keypoints file.

Only pictures with complete labels are included.

    python scripts/devset_to_coco.py DEVSET/index.json OUT.json
"""

import json
import sys
from pathlib import Path

_AREA_OF_BOX = 0.53  # COCO's areas are of the outline, which fills about half of the box


def main(index: str, out: str) -> None:
    """Read `index` and write the COCO file `out`."""
    listing = json.loads(Path(index).read_text())
    complete = [entry for entry in listing["images"] if entry["labels_complete"]]
    images = [{"id": e["id"], "file_name": e["file"], "width": e["width"], "height": e["height"]}
              for e in complete]
    annotations = [a for entry in complete for a in _annotations(entry)]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    category = {"id": 1, "name": "person", "keypoints": listing["coco17"], "skeleton": []}
    Path(out).write_text(json.dumps({"images": images, "annotations": annotations,
                                     "categories": [category]}))


def _annotations(entry: dict) -> list[dict]:
    """COCO annotations of a picture: its people, and regions to ignore as crowds."""
    people = [_annotation(entry["id"], p["bbox"], sum(p["kpts2d"], []), p.get("area"))
              for p in entry["people"]]
    crowds = [_annotation(entry["id"], region, [0.0] * 51, None) | {"iscrowd": 1}
              for region in entry["ignore_regions"]]
    return people + crowds


def _annotation(image_id: int, box: list, keypoints: list, area: float | None) -> dict:
    return {"image_id": image_id, "category_id": 1, "iscrowd": 0, "bbox": box,
            "area": area or box[2] * box[3] * _AREA_OF_BOX, "keypoints": keypoints,
            "num_keypoints": sum(v > 0 for v in keypoints[2::3])}


if __name__ == "__main__":
    main(*sys.argv[1:])
