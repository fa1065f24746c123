"""TCFormer's architectures and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...zoo.address import Address, drive, https
from ...zoo.arguments import DROP_PATH_RATE, IN_CHANS, NUM_CLASSES, NUM_KEYPOINTS, Argument
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

REPOSITORY = "https://github.com/zengwang430521/TCFormer"
MMPOSE = "https://github.com/open-mmlab/mmpose/tree/0.x"
AUTHORS = "the authors, zengwang430521/TCFormer"
PAPER = "arXiv:2204.08680"


def from_authors(file_id: str) -> Address:
    return drive(file_id, publisher=AUTHORS)


def from_mmpose(path: str) -> Address:
    url = f"https://download.openmmlab.com/mmpose/{path}"
    return https(url, publisher="OpenMMLab, mmpose")


# blocks of the four stages
LIGHT = (2, 2, 2, 2)
BASE = (3, 4, 6, 3)
LARGE = (3, 8, 27, 3)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One file. `addresses` are tried in order; `sha256` is the beginning of the hash."""

    addresses: tuple[Address, ...]
    file: str | None = None
    sha256: str | None = None
    metrics: Mapping[str, float]
    metrics_url: str = REPOSITORY
    description: str
    model_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An architecture and its weights by tag; `gmacs` for one image of `size`."""

    name: str
    summary: str
    depths: tuple[int, int, int, int]
    size: tuple[int, int] = (224, 224)
    params: int
    gmacs: float
    weights: Mapping[str, Weights]


CLASSIFIERS = [
    Variant(
        name="tcformer_light",
        summary="TCFormer-light, ImageNet-1k.",
        depths=LIGHT,
        params=14_231_659,
        gmacs=3.84,
        weights={
            "in1k": Weights(
                addresses=(from_authors("1TvcJCQhHaxXJhGo13i6b5PWErhzIivuD"),),
                file="tcformer_light-edacd9e5_20220606.pth",
                sha256="edacd9e5",
                metrics={"top1": 0.794},
                description="ImageNet-1k classifier",
            )
        },
    ),
    Variant(
        name="tcformer",
        summary="TCFormer, ImageNet-1k.",
        depths=BASE,
        params=25_594_731,
        gmacs=5.83,
        weights={
            "in1k": Weights(
                addresses=(
                    from_mmpose("pretrain_models/tcformer-4e1adbf1_20220421.pth"),
                    from_authors("1sIrTzIKFfW5Io2MybIWJoS0sv72Wd-av"),
                ),
                file="tcformer-4e1adbf1_20220421.pth",
                sha256="4e1adbf1",
                metrics={"top1": 0.82346, "top5": 0.95982, "loss": 0.798},
                description="ImageNet-1k classifier",
            )
        },
    ),
    Variant(
        name="tcformer_large",
        summary="TCFormer-large, ImageNet-1k.",
        depths=LARGE,
        params=62_818_923,
        gmacs=12.15,
        weights={
            "in1k": Weights(
                addresses=(from_authors("1wu9joQJU807IGW51mIlhK4dNnMze8E1K"),),
                file="tcformer_large-a47cc309_20220606.pth",
                sha256="a47cc309",
                metrics={"top1": 0.836},
                description="ImageNet-1k classifier",
            )
        },
    ),
]

POSE = [
    Variant(
        name="tcformer_mta_256x192",
        summary="TCFormer with MTA neck, 256x192, COCO-WholeBody 133 keypoints.",
        depths=BASE,
        size=(256, 192),
        params=27_782_152,
        gmacs=8.71,
        weights={
            "coco_wholebody": Weights(
                addresses=(from_authors("1tRMhOxiab8BcuImi7B64BRgXPZ2A3BAx"),),
                file="tcformer_mta_256x192-68d5f8aa_20220606.pth",
                sha256="68d5f8aa",
                metrics={
                    "Body AP": 0.697, "Body AR": 0.774, "Foot AP": 0.705, "Foot AR": 0.821,
                    "Face AP": 0.656, "Face AR": 0.753, "Hand AP": 0.539, "Hand AR": 0.652,
                    "Whole AP": 0.576, "Whole AR": 0.681,
                },
                description="whole-body heatmap pose, weights by the authors",
            ),
            "coco_wholebody_mmpose": Weights(
                addresses=(
                    from_mmpose(
                        "top_down/tcformer/tcformer_coco-wholebody_256x192-a0720efa_20220627.pth"
                    ),
                ),
                file="tcformer_coco-wholebody_256x192-a0720efa_20220627.pth",
                sha256="a0720efa",
                metrics={
                    "Body AP": 0.691, "Body AR": 0.769, "Foot AP": 0.690, "Foot AR": 0.809,
                    "Face AP": 0.650, "Face AR": 0.747, "Hand AP": 0.534, "Hand AR": 0.647,
                    "Whole AP": 0.574, "Whole AR": 0.678,
                },
                metrics_url=MMPOSE,
                description="whole-body heatmap pose, trained by mmpose 0.x (patch norm eps 1e-6)",
                model_args={"patch_embed_eps": 1e-6},
            ),
        },
    ),
    Variant(
        name="tcformer_large_mta_384x288",
        summary="TCFormer-large with MTA neck, 384x288, COCO-WholeBody 133 keypoints.",
        depths=LARGE,
        size=(384, 288),
        params=65_006_344,
        gmacs=38.65,
        weights={
            "coco_wholebody": Weights(
                addresses=(from_authors("1aUIj_-U1EfklVGzELUrierwFNoUp-zrH"),),
                metrics={
                    "Body AP": 0.718, "Body AR": 0.794, "Foot AP": 0.744, "Foot AR": 0.850,
                    "Face AP": 0.790, "Face AR": 0.856, "Hand AP": 0.614, "Hand AR": 0.715,
                    "Whole AP": 0.642, "Whole AR": 0.733,
                },
                description="whole-body heatmap pose, weights by the authors",
            )
        },
    ),
]  # fmt: skip

CLUSTERING_ARGS = {
    "sample_ratio": Argument(
        default=0.25, above=0.0, high=1.0, help="tokens after a merge / tokens before it"
    ),
    "density_noise": Argument(
        default=0.0,
        low=0.0,
        high=0.99,
        help="noise of clusterings in evaluation; originally 1e-6",
    ),
}
CLASSIFIER_ARGS = {
    "num_classes": NUM_CLASSES,
    "in_chans": IN_CHANS,
    "drop_path_rate": DROP_PATH_RATE,
    **CLUSTERING_ARGS,
}
POSE_ARGS = {
    "num_keypoints": replace(NUM_KEYPOINTS, default=133),
    "in_chans": IN_CHANS,
    "drop_path_rate": DROP_PATH_RATE,
    "patch_embed_eps": Argument(
        default=1e-5, low=0.0, high=1.0, help="epsilon of the norm after the patch embedding"
    ),
    **CLUSTERING_ARGS,
}


def classifier_cfg(variant: Variant, weights: Weights) -> PretrainedCfg:
    return PretrainedCfg(
        task="classification",
        dataset="in1k",
        description=weights.description,
        source=source_of(weights, "ImageNet-1k: research and non-commercial terms for the images"),
        input=InputCfg(size=variant.size, interpolation="bicubic", crop_pct=0.875),
        metrics=MetricsCfg(
            values=weights.metrics,
            protocol="ImageNet-1k val, 224, crop 0.875 bicubic, float16",
            url=weights.metrics_url,
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


def pose_cfg(variant: Variant, weights: Weights) -> PretrainedCfg:
    height, width = variant.size
    return PretrainedCfg(
        task="pose",
        dataset="coco_wholebody",
        description=weights.description,
        model_args=weights.model_args,
        source=source_of(
            weights,
            "COCO-WholeBody annotations: CC BY-NC 4.0, research and non-commercial use only",
        ),
        input=InputCfg(size=variant.size, bbox_padding=1.25, geometry="mmpose0"),
        decode=DecodeCfg(
            codec="heatmap",
            heatmap_size=(height // 4, width // 4),
            refine="quarter",
            shift_heatmap=True,
        ),
        metrics=MetricsCfg(
            values=weights.metrics,
            protocol="COCO-WholeBody v1.0 val, bbox=det56.4, flip test, float32",
            url=weights.metrics_url,
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


def source_of(weights: Weights, dataset_license: str) -> SourceCfg:
    return SourceCfg(
        addresses=weights.addresses,
        original_filename=weights.file,
        original_sha256=weights.sha256,
        license="apache-2.0",
        dataset_license=dataset_license,
        paper=PAPER,
    )


for _classifier in CLASSIFIERS:
    register(
        _classifier.name,
        summary=_classifier.summary,
        build="posezoo.models.tcformer.network:build_classifier",
        fixed={"depths": _classifier.depths},
        args=CLASSIFIER_ARGS,
        cfgs={tag: classifier_cfg(_classifier, w) for tag, w in _classifier.weights.items()},
    )

for _pose in POSE:
    register(
        _pose.name,
        summary=_pose.summary,
        build="posezoo.models.tcformer.network:build_pose",
        fixed={"depths": _pose.depths, "input_size": _pose.size},
        args=POSE_ARGS,
        cfgs={tag: pose_cfg(_pose, w) for tag, w in _pose.weights.items()},
    )
