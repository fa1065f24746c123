"""Cut reference outputs down to what the tests carry. Run once per family:

    python tests/goldens/slim.py REFERENCE_FOLDER FAMILY [TENSOR ...]

Tensors above 1024 values keep every n-th value of the flattened tensor (after the slicing that
the reference file states), which detects any wrong channel, row or scale; those named on the
command line stay whole. In the metadata `stride:<name>` is n and `shape:<name>` the shape before
flattening. Results of training steps (`train_*`) are left out. Manifests go into one
`manifests.json.gz`.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

LIMIT = 1024


def main(source: Path, family: str, keep_whole: set[str]) -> None:
    target = Path(__file__).parents[1] / "families" / family / "goldens"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.golden.safetensors")):
        tensors, metadata = {}, {}
        with safe_open(path, "np") as file:
            for name in (n for n in file.keys() if not n.startswith("train_")):
                whole = file.get_tensor(name)
                flat = whole.reshape(-1)
                stride = 1 if name in keep_whole else -(-flat.size // LIMIT)
                tensors[name] = flat[::stride].copy()
                metadata[f"stride:{name}"] = str(stride)
                metadata[f"shape:{name}"] = json.dumps(whole.shape)
        slim = target / path.name.replace(".golden", "")
        save_file(tensors, slim, metadata)
        slim.chmod(0o644)
    manifests = {
        path.name.removesuffix(".manifest.json"): json.loads(path.read_text())
        for path in sorted(source.glob("*.manifest.json"))
    }
    with gzip.GzipFile(target / "manifests.json.gz", "wb", mtime=0) as out:
        out.write(json.dumps(manifests, separators=(",", ":")).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], set(sys.argv[3:]))
