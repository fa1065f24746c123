"""Model cards: the words about a family and what the registry knows of its weights, as Markdown.

Numbers by the authors are called reported and carry their source. Only numbers measured with
posezoo are called measured; each carries the command, date and hardware of its record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..zoo.config import PretrainedCfg
from .addresses import summary
from .families import Family, family_of

__all__ = ["family_sections", "variant_card"]

_PIPELINES = {"pose": "keypoint-detection", "classification": "image-classification"}
_MAIN = ("AP", "AR", "Whole AP", "Whole AR", "top1")
_DATASETS = {
    "coco": "COCO 2017 keypoints",
    "coco_wholebody": "COCO-WholeBody v1.0",
    "mpii": "MPII Human Pose",
    "in1k": "ImageNet-1k",
}


def variant_card(
    cfg: PretrainedCfg,
    origin: Mapping[str, str],
    measured: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the README.md of a Hub repository, front matter included.

    Args:
        cfg: the variant.
        origin: provenance as stored in the weights file.
        measured: evaluation records of this variant, as `record.json` holds them.
    """
    family = family_of(cfg.architecture)
    parts = [
        _front_matter(cfg),
        f"# {cfg.name}",
        f"{cfg.description[:1].upper()}{cfg.description[1:]}. Paper: {cfg.source.paper}.",
        *([family.what] if family else []),
        "## Use",
        _usage(cfg),
        "## Recipe",
        _recipe(cfg),
        "## Accuracy",
        _accuracy(cfg, measured),
        "## Licence and data",
        _terms(cfg),
        *(["## Limits", family.limits] if family else []),
        "## Provenance",
        _provenance(origin),
        *(["## Citation", f"```bibtex\n{family.citation}\n```"] if family else []),
    ]
    return "\n\n".join(parts) + "\n"


def family_sections(family: Family, cfgs: Sequence[PretrainedCfg]) -> list[tuple[str, str]]:
    """Return the sections of a family's card as titles and texts; the first has no title.

    Args:
        family: the words.
        cfgs: its sets of weights.
    """
    protocols = sorted({f"* {c.metrics.protocol}: <{c.metrics.url}>" for c in cfgs if c.metrics})
    told = (
        "Reported by the authors (all values are among the published rows), by these protocols:"
        "\n\n" + "\n".join(protocols)
    )
    terms: dict[str, list[str]] = {}
    for cfg in cfgs:
        terms.setdefault(_terms(cfg), []).append(f"`{cfg.name}`")
    licences = [f"* {text} ({_shortened(names)})" for text, names in terms.items()]
    return [
        ("", _with_links(family.what)),
        ("What is special", _bullets(family.special)),
        ("Which one", family.advice),
        ("Variants", _variants(cfgs) + (f"\n\n{told}" if protocols else "")),
        ("Compared with the original", _bullets(family.differs)),
        ("Licence and data", "\n".join(licences)),
        ("Limits", family.limits),
        ("Citation", f"```bibtex\n{family.citation}\n```"),
    ]


def _with_links(text: str) -> str:
    """Turn numbers of papers into links."""
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"\(doi:([^\s)]+)\)", r"([doi:\1](https://doi.org/\1))", text)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"* {sentence}" for sentence in sentences)


def _shortened(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _variants(cfgs: Sequence[PretrainedCfg]) -> str:
    rows = [
        "| weights | data | input | params | GMACs | reported | where they are |",
        "|---|---|---|---|---|---|---|",
    ]
    for cfg in cfgs:
        size = f"{cfg.input.size[0]}x{cfg.input.size[1]}"
        params = f"{cfg.params / 1e6:.1f}\u00a0M" if cfg.params else "-"
        macs = f"{cfg.macs / 1e9:.2f}" if cfg.macs else "-"
        rows.append(
            f"| `{cfg.name}` | {_trained_on(cfg)} | {size} | {params} | {macs} | "
            f"{_main_values(cfg)} | {summary(cfg)} |"
        )
    return "\n".join(rows)


def _front_matter(cfg: PretrainedCfg) -> str:
    lines = ["---", "library_name: posezoo", f"license: {cfg.source.license or 'other'}"]
    if cfg.task in _PIPELINES:
        lines.append(f"pipeline_tag: {_PIPELINES[cfg.task]}")
    tags = ["posezoo", cfg.dataset.replace("_", "-")]
    if found := re.search(r"arXiv:(\d{4}\.\d{4,5})", cfg.source.paper or ""):
        tags.append(f"arxiv:{found.group(1)}")
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _usage(cfg: PretrainedCfg) -> str:
    lines = ["```python", "import posezoo", ""]
    lines.append(f'model = posezoo.create_model("{cfg.name}", pretrained=True)')
    if cfg.task == "pose":
        lines.append('result = posezoo.PosePredictor(model)("photo.jpg", [[x1, y1, x2, y2]])')
    return "\n".join([*lines, "```"])


def _recipe(cfg: PretrainedCfg) -> str:
    i, d = cfg.input, cfg.decode
    lines = [
        f"* input {i.size[0]}x{i.size[1]} (HxW), RGB in 0-1, mean {list(i.mean)}, "
        f"std {list(i.std)}, {i.interpolation}",
    ]
    if i.crop_pct:
        lines.append(f"* shorter side resized to {round(i.size[0] / i.crop_pct)}, centre crop")
    if d:
        lines.append(f"* crop convention `{i.geometry}`, box padding {i.bbox_padding}")
        shift = ", mirrored heatmap shifted by one cell" if d.shift_heatmap else ""
        flip = f"with flip test{shift}" if d.flip_test else "without flip test"
        lines.append(f"* decoding: {d.codec}, refinement {d.refine}, {flip}")
        names = cfg.skeleton.keypoint_names
        shown = ", ".join(f"{k} {name}" for k, name in enumerate(names[:17]))
        rest = " and so on, in the order of COCO-WholeBody" if len(names) > 17 else ""
        lines.append(f"* {len(names)} keypoints: {shown}{rest}")
    return "\n".join(lines)


def _accuracy(cfg: PretrainedCfg, measured: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    if cfg.metrics:
        lines.append(
            f"Reported by the authors ({cfg.metrics.protocol}): {_values(cfg)}. "
            f"Source: <{cfg.metrics.url}>."
        )
    else:
        lines.append("The authors report no number for this variant.")
    for record in measured:
        values = ", ".join(f"{k} {100 * v:.1f}" for k, v in record["statistics"].items()
                           if isinstance(v, float))  # fmt: skip
        lines.append(
            f"Measured with posezoo ({record['dataset']}, bbox={record['box_source']}): {values}. "
            f"Command `{record['command']}`, {record['date']}, {record['environment']['device']}."
        )
    if not measured:
        lines.append("Nothing was measured with posezoo for this card.")
    return "\n\n".join(lines)


def _values(cfg: PretrainedCfg) -> str:
    if cfg.metrics is None:
        return ""
    return ", ".join(
        f"{name} {value:.3f}" if name == "loss" else f"{name} {100 * value:.1f}"
        for name, value in cfg.metrics.values.items()
    )


def _main_values(cfg: PretrainedCfg) -> str:
    """The one or two values by which models are compared; text without a break inside."""
    values = cfg.metrics.values if cfg.metrics else {}
    shown = [f"{n} {100 * values[n]:.1f}" for n in _MAIN if n in values]
    return ", ".join(text.replace(" ", "\u00a0") for text in shown) or "-"


def _trained_on(cfg: PretrainedCfg) -> str:
    if cfg.source.packaged:
        return "rendered people, no photos"
    return _DATASETS.get(cfg.dataset, cfg.dataset)


def _terms(cfg: PretrainedCfg) -> str:
    licence = f"Weights: {cfg.source.license}." if cfg.source.license else "No licence is stated."
    data = f" Trained on {_trained_on(cfg)}."
    terms = f" {cfg.source.dataset_license}." if cfg.source.dataset_license else ""
    return licence + data + terms


def _provenance(origin: Mapping[str, str]) -> str:
    if not origin:
        return "Saved from a model in memory; no original file is recorded."
    lines = [f"* {key.replace('_', ' ')}: {value}" for key, value in sorted(origin.items())]
    change = "Changed from the original: converted to safetensors, keys renamed."
    return "\n".join(lines) + "\n\n" + change
