"""Write what README, site and model cards take from the registry, published.json and results/.

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

import chooser
import commands

import posezoo
from posezoo.evaluation.provenance import is_published_file
from posezoo.weights.cards import family_sections
from posezoo.weights.families import FAMILIES, Family
from posezoo.zoo.config import PretrainedCfg

HERE = Path(__file__).parent
ROOT = HERE.parent
DOCS = ROOT / "docs"
MARK = "<!-- {}: written by benchmarks/report.py -->"
DATA = {
    "coco": "COCO keypoints", "coco_wholebody": "COCO-WholeBody", "mpii": "MPII Human Pose",
    "in1k": "ImageNet-1k",
}  # fmt: skip


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


def published_rows() -> str:
    """Every published row by data set, with what was measured; then those without a command."""
    measured = results()
    rows = json.loads((HERE / "published.json").read_text())["rows"]
    can = [row for row in rows if "no_command" not in row]
    parts = [
        f"{len(can)} rows have a command; {sum(r['row'] in measured for r in can)} of them were "
        "measured with posezoo on the whole data set so far. The others of the "
        f"{len(rows)} cannot be measured, for the reason in the last table."
    ]
    head = ["row", "boxes", "reported", "status", *(["measured"] if measured else [])]
    for dataset in dict.fromkeys(row["dataset"] for row in can):
        lines = [
            [*reported(row), *([measured_text(row, measured)] if measured else [])]
            for row in can
            if row["dataset"] == dataset
        ]
        parts += [f"### {DATA.get(dataset, dataset)}", chooser.markdown(head, lines)]
    cannot = [[*reported(row), row["no_command"]] for row in rows if "no_command" in row]
    parts += ["### Without a command", chooser.markdown([*head[:4], "why not"], cannot)]
    return "\n\n".join(parts)


def reported(row: dict[str, Any]) -> list[str]:
    """Name, boxes, values and status of a row."""
    costs = [f"{name} {value}" for name, value in row.get("costs", {}).items()]
    values = ", ".join([numbers(row["values"]), *costs])
    return [f"`{row['row']}`", row["boxes"], values, f"[{row['status']}]({row['source']})"]


def measured_text(row: dict[str, Any], measured: dict[str, dict[str, Any]]) -> str:
    record = measured.get(row["row"])
    if record is None:
        return ""
    found = {name.lower(): value for name, value in record["statistics"].items()}
    text = numbers({name: found.get(name.lower()) for name in row["values"]})
    return f"{text} (`{record['command']}`, {record['date']}, {record['environment']['device']})"


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


def variants(family: Family) -> list[PretrainedCfg]:
    names = posezoo.list_models(list(family.patterns), tags=True)
    return [posezoo.get_pretrained_cfg(name) for name in names]


def model_cards() -> str:
    """All of MODEL_CARDS.md."""
    parts = [
        "# Model cards",
        MARK.format("MODEL_CARDS.md"),
        "Numbers are those the authors report, by the protocol stated below each table; what "
        "posezoo measured says so. `posezoo info NAME` shows one set of weights with its recipe, "
        "addresses and terms. The code is Apache-2.0; weights keep their own licences.",
        "## Which model",
        chooser.short_table("#{}"),
    ]
    for family in FAMILIES:
        parts += [f'<a id="{family.slug}"></a>', f"## {family.title}"]
        for title, text in family_sections(family, variants(family)):
            parts += [f"### {title}" if title else "", text]
    return "\n\n".join(part for part in parts if part) + "\n"


def family_page(family: Family) -> str:
    """The generated part of a family's page."""
    parts = []
    for title, text in family_sections(family, variants(family)):
        parts += [f"## {title}" if title else "", text]
    return "\n\n".join(part for part in parts if part)


def replaced(path: Path, name: str, content: str) -> str:
    """Return the text of a file with what is between the two markers called `name` replaced."""
    start, end = MARK.format(name), MARK.format(f"end of {name}")
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    text = path.read_text()
    if not pattern.search(text):
        raise SystemExit(f"{path.name}: markers {start!r} … {end!r} are missing")
    return pattern.sub(lambda _: f"{start}\n\n{content}\n\n{end}", text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args().check
    made = [
        (ROOT / "README.md", "models", chooser.short_table("docs/families/{}.md")),
        (DOCS / "which-model.md", "models", chooser.short_table("families/{}.md")),
        (DOCS / "all-models.md", "all models", chooser.long_table("families/{}.md")),
        (DOCS / "results/published.md", "published rows", published_rows()),
        (DOCS / "reference/cli.md", "commands", commands.reference()),
        *((DOCS / f"families/{f.slug}.md", "family", family_page(f)) for f in FAMILIES),
    ]
    wanted = {ROOT / "MODEL_CARDS.md": model_cards()}
    wanted |= {path: replaced(path, name, content) for path, name, content in made}
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text() != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(wanted[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
