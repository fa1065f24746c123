"""Which model to take: the short table of README and site, and the long one of all models.

Everything but the purposes comes from the registry and, the milliseconds, from latency.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import posezoo
from posezoo.weights.addresses import summary
from posezoo.zoo.config import PretrainedCfg

HERE = Path(__file__).parent
MAIN = ("AP", "Whole AP", "top1")


class Choice(NamedTuple):
    """A row of the short table: what for, and which model."""

    purpose: str
    name: str


CHOICES = (
    Choice("17 keypoints, the default", "vitpose_b_simple_256x192"),
    Choice("17 keypoints, small", "vitpose_plus_s_256x192"),
    Choice("17 keypoints, least work", "uniformer_s_256x192"),
    Choice("17 keypoints, large crops", "uniformer_b_448x320"),
    Choice("17 keypoints, most accurate", "vitpose_plus_h_256x192"),
    Choice("133 keypoints", "tcformer_mta_256x192"),
    Choice("133 keypoints, most accurate", "tcformer_large_mta_384x288"),
    Choice("poses as tokens", "pct_swin_base"),
    Choice("keypoint tokens", "tokenpose_b_256x192"),
    Choice("masked tokens", "tmpose_b_256x192"),
    Choice("first look, no download", "hrnet_s_192x144"),
    Choice("ImageNet classes", "uniformer_small"),
    Choice("ImageNet classes, tokens as regions", "tcformer"),
)


def latencies() -> dict[str, dict[str, Any]]:
    """Measured milliseconds by device, `cpu` or `cuda`."""
    path = HERE / "latency.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def short_table(link: str) -> str:
    """The models of `CHOICES`; `link` is the address of a family's page with `{}` for its name."""
    measured = latencies()
    devices = [d for d in ("cpu", "cuda") if d in measured]
    titles = {"cpu": "ms, CPU", "cuda": "ms, GPU"}
    head = ["for", "model", "input", "params", "GMACs", "reported", *(titles[d] for d in devices)]
    rows = []
    for purpose, name in CHOICES:
        cfg = posezoo.get_pretrained_cfg(name)
        times = [f"{measured[d]['ms'][name]:.0f}" for d in devices]
        shown = f"[`{name}`]({link.format(page_of(name))})"
        rows.append([purpose, shown, *sizes(cfg), reported(cfg), *times, where(cfg)])
    notes = [
        f"{titles[d]}: one crop, float32, no flip test; {measured[d]['hardware']}, torch "
        f"{measured[d]['torch']}, load {measured[d]['load']}, `{measured[d]['command']}`, "
        f"{measured[d]['date']}."
        for d in devices
    ]
    told = (
        "Reported: by the authors, COCO val2017 with detected boxes (133 keypoints: "
        "COCO-WholeBody v1.0) or ImageNet-1k; - where they print none."
    )
    return "\n".join([markdown([*head, "weights"], rows), "", " ".join([told, *notes])])


def long_table(link: str) -> str:
    """Every set of weights, by family as the registry has them."""
    head = ["weights", "task", "input", "params", "GMACs", "reported", "where they are"]
    rows = []
    for name in posezoo.list_models(tags=True):
        cfg = posezoo.get_pretrained_cfg(name)
        shown = f"[`{cfg.name}`]({link.format(page_of(name))})"
        rows.append([shown, task(cfg), *sizes(cfg), reported(cfg), summary(cfg)])
    return markdown(head, rows)


def page_of(name: str) -> str:
    from posezoo.weights.families import family_of

    family = family_of(name.partition(".")[0])
    if family is None:
        raise SystemExit(f"{name} is in no family of posezoo/weights/families.py")
    return family.slug


def task(cfg: PretrainedCfg) -> str:
    if cfg.task == "pose":
        return f"{len(cfg.skeleton.keypoint_names)} keypoints"
    return {"classification": "1000 classes", "tokenizer": "pose tokens"}[cfg.task]


def sizes(cfg: PretrainedCfg) -> list[str]:
    """Input (H x W), parameters and multiply-adds as text."""
    height, width = cfg.input.size
    params = f"{cfg.params / 1e6:.1f}\u00a0M" if cfg.params else "-"
    return [f"{height}x{width}", params, f"{cfg.macs / 1e9:.1f}" if cfg.macs else "-"]


def reported(cfg: PretrainedCfg) -> str:
    values = cfg.metrics.values if cfg.metrics else {}
    text = next((f"{name} {100 * values[name]:.1f}" for name in MAIN if name in values), "-")
    return text.replace(" ", "\u00a0")


def where(cfg: PretrainedCfg) -> str:
    """How weights are got, in a word or two."""
    text = summary(cfg)
    if text.startswith("by hand"):
        return "by hand"
    if text.startswith("none"):
        return "train"
    return text if text == "in the package" else "fetched"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
