"""Record what TensorFlow.js computes for the networks that are imported from its files.

    npm install @tensorflow/tfjs                    # where node finds it, or set NODE_PATH
    scripts/run python test/tools/record_tfjs.py test/data/tfjs_heads.npz

For noise as image, the file gets values of each head at random places: flat indices into the head
(1, C, h, w). It takes a minute a network: TensorFlow.js computes in JavaScript.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ros2_pose.networks import nanodet, thunder
from ros2_pose.weights import fetch

_SCRIPT = Path(__file__).parent / "tfjs_heads.js"
_VALUES = 300  # of each head
# Name of the files, tensors, type and shape of the input.
NETWORKS = {
    "movenet_thunder": (thunder.HEADS, "int32", (1, 256, 256, 3)),
    "nanodet": (nanodet._HEADS, "float32", (1, 3, 416, 416)),
}


def noise(shape: tuple[int, ...]) -> np.ndarray:
    """Return the image of that shape, whole numbers in 0..255."""
    return np.random.default_rng(0).integers(0, 256, shape)


def run_tfjs(graph: Path, weights: Path, image: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Compute the named tensors (1, h, w, C) with TensorFlow.js; image: int32 or float32."""
    with tempfile.TemporaryDirectory() as folder:
        into, out = Path(folder) / "image", Path(folder) / "tensors"
        into.write_bytes(image.tobytes())
        shape = ",".join(map(str, image.shape))
        done = subprocess.run(["node", _SCRIPT, graph, weights, image.dtype.name, shape, into, out,
                               *names], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        shapes = json.loads(done.stdout.splitlines()[-1])
        values = np.frombuffer(out.read_bytes(), np.float32)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(values, ends), shapes)]


def main(path: Path) -> None:
    recorded, rng = {}, np.random.default_rng(1)
    for network, (names, dtype, shape) in NETWORKS.items():
        heads = run_tfjs(fetch(f"{network}.json"), fetch(f"{network}.bin"),
                         noise(shape).astype(dtype), names)
        for number, head in enumerate(heads):
            places = rng.choice(head.size, min(_VALUES, head.size), replace=False)
            recorded[f"{network}/{number}/places"] = places.astype(np.int32)
            recorded[f"{network}/{number}/values"] = head.transpose(0, 3, 1, 2).ravel()[places]
    np.savez_compressed(path, **recorded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
