"""Make the goldens of ViTPose with the implementation in the package transformers.

    pip install transformers
    python tests/families/vitpose/make.py [VARIANT ...]

Weights and input are the stand-ins of `fill.py`, everything runs in float64. Stored are, for
each variant: the tokens after the first, the middle and the last block, the normalised map, and
the heatmaps, for ViTPose+ once per expert. Tensors are cut down as `slim.py` says. The manifest
holds the keys and shapes of the files on the Hub. The largest variant needs 9 GB.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

sys.path.insert(0, str(Path(__file__).parents[2]))

from goldens.fill import make_input, make_tensor  # noqa: E402

HERE = Path(__file__).parent / "goldens"
LIMIT = 1024
EXPERTS = 6
BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}
SIZES: dict[str, dict[str, Any]] = {
    "vitpose_b_simple_256x192": {**BASE, "simple": True},
    "vitpose_b_256x192": BASE,
    "vitpose_plus_s_256x192": {**BASE, "hidden_size": 384, "part_features": 96},
    "vitpose_plus_b_256x192": {**BASE, "part_features": 192},
    "vitpose_plus_l_256x192": {
        "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24,
        "part_features": 256,
    },
    "vitpose_plus_h_256x192": {
        "hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32,
        "part_features": 320,
    },
}  # fmt: skip


def build(variant: str) -> VitPoseForPoseEstimation:
    size = dict(SIZES[variant])
    simple = size.pop("simple", False)
    experts = EXPERTS if "part_features" in size else 1
    backbone = VitPoseBackboneConfig(
        num_experts=experts, out_indices=[size["num_hidden_layers"]], **size
    )
    config = VitPoseConfig(backbone_config=backbone, num_labels=17, use_simple_decoder=simple)
    return VitPoseForPoseEstimation(config).eval()


def main(variants: list[str]) -> None:
    file = HERE / "manifests.json.gz"
    manifests = json.loads(gzip.decompress(file.read_bytes())) if file.is_file() else {}
    for variant in variants:
        model = build(variant).double()
        state = model.state_dict()
        manifests[variant] = {
            key: {"shape": list(v.shape), "dtype": "float32" if v.is_floating_point() else "int64"}
            for key, v in state.items()
        }
        for key, value in state.items():
            if value.is_floating_point():
                value.copy_(make_tensor(key, tuple(value.shape)))
        found: dict[str, torch.Tensor] = {}
        layers = model.backbone.encoder.layer
        for i in sorted({0, len(layers) // 2 - 1, len(layers) - 1}):
            layers[i].register_forward_hook(_keeper(found, f"blocks.{i}"))
        model.backbone.layernorm.register_forward_hook(_keeper(found, "norm"))
        image = make_input("image", (1, 3, 256, 192)).double()
        with torch.inference_mode():
            for expert in range(EXPERTS if "part_features" in SIZES[variant] else 1):
                index = torch.tensor([expert]) if "part_features" in SIZES[variant] else None
                heatmaps = model(image, dataset_index=index).heatmaps
                found.setdefault(f"heatmaps.{expert}", heatmaps)
        write(HERE / f"{variant}.safetensors", found)
        print(variant, {name: tuple(t.shape) for name, t in found.items()})
    text = json.dumps(manifests, separators=(",", ":")).encode()
    with gzip.GzipFile(file, "wb", mtime=0) as out:
        out.write(text)


def _keeper(found: dict[str, torch.Tensor], name: str) -> Any:
    """Return a hook that keeps the first output, that of expert 0."""

    def keep(module: torch.nn.Module, args: Any, output: Any) -> None:
        found.setdefault(name, output[0] if isinstance(output, tuple) else output)

    return keep


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    cut, metadata = {}, {}
    for name, whole in tensors.items():
        stride = -(-whole.numel() // LIMIT)
        cut[name] = whole.reshape(-1)[::stride].clone()
        metadata[f"stride:{name}"] = str(stride)
        metadata[f"shape:{name}"] = json.dumps(list(whole.shape))
        for kind in ("mean", "std"):
            cut[f"{name}.{kind}"] = getattr(whole, kind)()
            metadata[f"stride:{name}.{kind}"], metadata[f"shape:{name}.{kind}"] = "1", "[]"
    save_file(cut, path, metadata)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SIZES))
