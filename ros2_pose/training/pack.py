"""Pack labelled pictures into one small file, to train on another machine.

    python -m ros2_pose.training.pack LABELS.json pack.zip --megabytes 30

Pictures are shrunk and compressed until they fit; pixels of the labels are scaled with them. What
is unpacked is a folder for `--data labelled FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose.data.labelled import LABELS
from ros2_pose.data.reading import read_json
from ros2_pose.data.sample import DataError

_SIDES = (384, 320, 288, 256, 224)  # px, of the longer side, the first that fits
_QUALITIES = (80, 65, 50, 40)  # of JPEGs
_TRIED = 200  # pictures that the size of all is estimated from
_LABEL_SHARE = 0.2  # of the file that labels may take


def packed(labels: Path, out: Path, megabytes: float,
           pictures: int | None = None) -> tuple[int, int]:
    """Write a zip with `labels.json` and the pictures.

    Args:
        labels: COCO keypoints file with paths of pictures relative to it.
        out: the file to write.
        megabytes: greatest size.
        pictures: greatest number, drawn at random; None: all.
    Returns:
        Side, px, and JPEG quality of the pictures.
    Raises:
        DataError: labels or pictures cannot be read, or do not fit.
    """
    table = read_json(labels, "give a file of labels")
    people = defaultdict(list)
    for person in table["annotations"]:
        people[person["image_id"]].append(person)
    chosen = table["images"]
    if pictures is not None and pictures < len(chosen):
        rows = np.random.default_rng(0).permutation(len(chosen))[:pictures]
        chosen = [chosen[row] for row in sorted(rows)]
    side, quality = _chosen(labels.parent, chosen, megabytes)
    annotations: list[dict] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        images = []
        for image in tqdm(chosen, "packing", unit="picture"):
            content, scale, size = _shrunk(labels.parent / image["file_name"], side, quality)
            name = f"pictures/{image['id']}.jpg"
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_STORED)
            images.append(_image(image, name, scale, size))
            annotations += [_person(person, scale) for person in people[image["id"]]]
        file.writestr(LABELS, json.dumps(table | {"images": images, "annotations": annotations}))
    if out.stat().st_size > 1e6 * megabytes:
        raise DataError(f"{out} has {out.stat().st_size / 1e6:.0f} MB, more than {megabytes:g}: "
                        "give fewer --pictures")
    return side, quality


def _chosen(folder: Path, images: list[dict], megabytes: float) -> tuple[int, int]:
    """Return the largest side and best quality with which all pictures fit."""
    some = images[::max(len(images) // _TRIED, 1)]
    for side in _SIDES:
        for quality in _QUALITIES:
            content = [_shrunk(folder / image["file_name"], side, quality)[0] for image in some]
            size = float(np.mean([len(one) for one in content])) * len(images)
            if size <= 1e6 * megabytes * (1 - _LABEL_SHARE):
                return side, quality
    raise DataError(f"{len(images)} pictures do not fit into {megabytes:g} MB: give fewer "
                    "--pictures")


def _shrunk(path: Path, side: int, quality: int) -> tuple[bytes, float, tuple[int, int]]:
    """Return a picture as JPEG, its scale, and its width and height."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise DataError(f"{path} is not a picture that OpenCV can read")
    scale = min(side / max(picture.shape[:2]), 1.0)
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return content.tobytes(), scale, size


def _image(image: dict, name: str, scale: float, size: tuple[int, int]) -> dict[str, Any]:
    changed = {"file_name": name, "width": size[0], "height": size[1]}
    if "camera" in image:
        changed["camera"] = [scale * value for value in image["camera"]]
    return image | changed


def _person(person: dict, scale: float) -> dict[str, Any]:
    """A person's label with pixels scaled, rounded to a hundredth of a pixel."""
    points = np.array(person["keypoints"], float).reshape(-1, 3) * (scale, scale, 1)
    # COCO's first pixel has its centre at 0.
    points[:, :2] += np.where(points[:, 2:] > 0, (scale - 1) / 2, 0)
    changed: dict[str, Any] = {
        "keypoints": points.round(2).ravel().tolist(),
        "bbox": (scale * np.array(person["bbox"], float)).round(2).tolist(),
        "area": round(scale**2 * person["area"], 2)}
    if "keypoints_cov" in person:
        cov = scale**2 * np.array(person["keypoints_cov"], float)
        changed["keypoints_cov"] = cov.round(3).tolist()
    return person | changed


def main() -> None:
    """Pack as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path, help="COCO keypoints file, e.g. of ros2_pose label")
    parser.add_argument("out", type=Path, help="the .zip to write")
    parser.add_argument("--megabytes", type=float, default=30, help="greatest size (%(default)g)")
    parser.add_argument("--pictures", type=int, help="at most so many, drawn at random (all)")
    args = parser.parse_args()
    side, quality = packed(args.labels, args.out, args.megabytes, args.pictures)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, pictures of {side} px, quality "
          f"{quality}")


if __name__ == "__main__":
    main()
