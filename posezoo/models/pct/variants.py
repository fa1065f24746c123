"""PCT's architectures and weights: pose models, tokenizers, heatmap models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...zoo.arguments import DROP_PATH_RATE, NUM_KEYPOINTS
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

NETWORK = "posezoo.models.pct.network"
SHARE = "https://mailustceducn-my.sharepoint.com/:f:/g/personal/aa397601_mail_ustc_edu_cn/"
POSE_FOLDER = "Epf3xVN8lJ9Km4qGQePCKR4Bl809PZXxXJETzWz6LFuFig?e=PbG3Ps"
TOKENIZER_FOLDER = "Esvcc0LSurFLjhPGRJ-ZbSAB61A1q2rFWgePjHygbdwMLA?e=pXgisB"
HEATMAP_FOLDER = "EiHuJ2SUpOhEmbuEXS5KkDUBBaeRlz2QyVnEcDwDUuJtwA?e=dCiiP1"
PAPER = "arXiv:2303.11638"
SIZE = (256, 256)
COCO_TERMS = "COCO: annotations CC BY 4.0, images under mixed Flickr licences"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A size of Swin-V2; `file` is what the authors call every file with it."""

    label: str
    title: str
    file: str
    width: int
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]

    @property
    def fixed(self) -> dict[str, Any]:
        return {"width": self.width, "depths": self.depths, "num_heads": self.num_heads}


BASE = Backbone(
    label="Swin-V2-base", title="Swin-V2-Base", file="swin_base.pth", width=128,
    depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32),
)  # fmt: skip
LARGE = Backbone(
    label="Swin-V2-large", title="Swin-V2-Large", file="swin_large.pth", width=192,
    depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48),
)  # fmt: skip
HUGE = Backbone(
    label="Swin-V2-huge", title="Swin-V2-Huge", file="swin_huge.pth", width=256,
    depths=(2, 2, 42, 2), num_heads=(8, 16, 32, 64),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Variant:
    """`reported` is the paper's AP on COCO val2017, `trust` how far it is confirmed."""

    name: str
    backbone: Backbone
    params: int
    gmacs: float
    reported: float | None = None
    trust: str = ""


POSE = [
    Variant(
        name="pct_swin_base", backbone=BASE, params=125_488_230, gmacs=22.2, reported=0.777,
        trust="not confirmed: a user's run of the weights gave 75.9, others quote 77.5",
    ),
    Variant(
        name="pct_swin_large", backbone=LARGE, params=233_928_418, gmacs=48.0, reported=0.783,
        trust="not confirmed",
    ),
    Variant(
        name="pct_swin_huge", backbone=HUGE, params=688_338_014, gmacs=164.6, reported=0.793,
        trust="confirmed",
    ),
]  # fmt: skip
POSE_UNGUIDED = Variant(
    name="pct_swin_base_woimgguide", backbone=BASE, params=125_488_230, gmacs=22.2,
)  # fmt: skip
TOKENIZERS = [
    Variant(name="pct_tokenizer_swin_base", backbone=BASE, params=89_563_974, gmacs=22.06),
    Variant(name="pct_tokenizer_swin_large", backbone=LARGE, params=198_004_162, gmacs=47.83),
    Variant(name="pct_tokenizer_swin_huge", backbone=HUGE, params=652_413_758, gmacs=164.40),
]
HEATMAP = [
    Variant(name="hmp_swin_base", backbone=BASE, params=87_033_833, gmacs=21.99),
    Variant(name="hmp_swin_large", backbone=LARGE, params=195_517_397, gmacs=47.77),
    Variant(name="hmp_swin_huge", backbone=HUGE, params=650_040_001, gmacs=164.37),
]


def published(folder: str, backbone: Backbone) -> SourceCfg:
    """A file of the PCT project, in a SharePoint folder, which needs a browser."""
    return SourceCfg(
        original_page=SHARE + folder,
        original_filename=backbone.file,
        license="mit",
        dataset_license=COCO_TERMS,
        paper=PAPER,
    )


NOT_PUBLISHED = SourceCfg(
    license="mit",
    dataset_license=COCO_TERMS,
    paper=PAPER,
    unavailable="no confirmed file: the authors mention one, their list does not have it",
)
PACKAGED = SourceCfg(
    packaged="pct_tokenizer_swin_base_woimgguide.rendered.safetensors",
    sha256="80a0bfad30b54155face0c2934e310a174fe5b240e68766a7b0c9d623ba98754",
    license="apache-2.0",
    dataset_license="rendered by posezoo.synthetic, no terms",
    paper=PAPER,
)


def pose_cfg(variant: Variant, source: SourceCfg, description: str) -> PretrainedCfg:
    metrics = None
    if variant.reported is not None:
        metrics = MetricsCfg(
            values={"AP": variant.reported},
            protocol=f"COCO val2017, bbox=det56.4, flip test; {variant.trust}",
            url="https://arxiv.org/abs/2303.11638",
        )
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=f"top-down pose by compositional tokens, {description}",
        source=source,
        input=InputCfg(size=SIZE, bbox_padding=1.12, geometry="mmpose0"),
        decode=DecodeCfg(codec="regression"),
        metrics=metrics,
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


def tokenizer_cfg(
    source: SourceCfg, description: str, *, params: int, gmacs: float
) -> PretrainedCfg:
    return PretrainedCfg(
        task="tokenizer",
        dataset="coco",
        description=f"pose tokenizer, 34 tokens out of 2048, {description}",
        source=source,
        input=InputCfg(size=SIZE, bbox_padding=1.12, geometry="mmpose0"),
        params=params,
        macs=round(gmacs * 1e9),
    )


def heatmap_cfg(variant: Variant) -> PretrainedCfg:
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=f"top-down heatmap pose on {variant.backbone.label}, the backbone of PCT",
        source=published(HEATMAP_FOLDER, variant.backbone),
        input=InputCfg(size=SIZE, bbox_padding=1.25, geometry="mmpose0"),
        decode=DecodeCfg(
            codec="heatmap", heatmap_size=(64, 64), refine="quarter", shift_heatmap=True
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


for _pose in POSE:
    register(
        _pose.name,
        summary=f"PCT on {_pose.backbone.title}, 256x256, COCO 17 keypoints.",
        build=f"{NETWORK}:build_pose",
        fixed={**_pose.backbone.fixed, "image_guided": True},
        args={"drop_path_rate": DROP_PATH_RATE},
        cfgs={
            "coco": pose_cfg(_pose, published(POSE_FOLDER, _pose.backbone), _pose.backbone.label)
        },
    )

register(
    POSE_UNGUIDED.name,
    summary="PCT on Swin-V2-Base around the tokenizer without image guidance, 256x256, COCO.",
    build=f"{NETWORK}:build_pose",
    fixed={**POSE_UNGUIDED.backbone.fixed, "image_guided": False},
    args={"drop_path_rate": DROP_PATH_RATE},
    cfgs={
        "coco": pose_cfg(
            POSE_UNGUIDED, NOT_PUBLISHED, "Swin-V2-base, tokenizer without image guidance"
        )
    },
)

for _tokenizer in TOKENIZERS:
    register(
        _tokenizer.name,
        summary=f"PCT tokenizer guided by {_tokenizer.backbone.title}, COCO 17 keypoints.",
        build=f"{NETWORK}:build_guided_tokenizer",
        fixed=_tokenizer.backbone.fixed,
        args={},
        cfgs={
            "coco": tokenizer_cfg(
                published(TOKENIZER_FOLDER, _tokenizer.backbone),
                f"guided by the image through {_tokenizer.backbone.label}",
                params=_tokenizer.params,
                gmacs=_tokenizer.gmacs,
            )
        },
    )

register(
    "pct_tokenizer_swin_base_woimgguide",
    summary="PCT tokenizer without image guidance, COCO 17 keypoints.",
    build=f"{NETWORK}:build_tokenizer",
    fixed={},
    args={},
    cfgs={
        "coco": tokenizer_cfg(
            NOT_PUBLISHED, "from coordinates alone", params=2_408_526, gmacs=0.086
        ),
        "rendered": tokenizer_cfg(
            PACKAGED,
            "from coordinates alone, trained on rendered people only; for demos and tests",
            params=2_408_526,
            gmacs=0.086,
        ),
    },
)

for _heatmap in HEATMAP:
    register(
        _heatmap.name,
        summary=f"{_heatmap.backbone.title} with a heatmap head, 256x256, COCO 17 keypoints.",
        build=f"{NETWORK}:build_heatmap_pose",
        fixed=_heatmap.backbone.fixed,
        args={"num_keypoints": NUM_KEYPOINTS, "drop_path_rate": DROP_PATH_RATE},
        cfgs={"coco": heatmap_cfg(_heatmap)},
    )
