"""UniFormer's architectures and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...zoo.address import Address, drive, https, hub
from ...zoo.arguments import DROP_PATH_RATE, IN_CHANS, NUM_CLASSES, NUM_KEYPOINTS, Argument
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

PAPER = (
    "UniFormer: Unifying Convolution and Self-attention for Visual Recognition, "
    "Li et al., TPAMI 2023, arXiv:2201.09450"
)
MMPOSE = "https://download.openmmlab.com/mmpose/v1/projects/uniformer/"
OPENMMLAB = "OpenMMLab, mmpose"
AUTHORS = "the authors, Sense-X/UniFormer"

# blocks of the four stages
SMALL = (3, 4, 8, 3)
SMALL_PLUS = (3, 5, 9, 3)
BASE = (5, 8, 20, 7)


@dataclass(frozen=True, kw_only=True)
class PoseVariant:
    """A pose model with mmpose's copy of the weights and the authors' own file.

    `mmpose_sha256` is the beginning of the hash, `authors_copy` the URL of somebody's copy of the
    authors' file; both sets of metrics are for COCO val2017.
    """

    name: str
    title: str
    depths: tuple[int, int, int, int]
    size: tuple[int, int]
    params: int
    gmacs: float
    mmpose_file: str
    mmpose_sha256: str
    mmpose_metrics: Mapping[str, float]
    authors_drive_id: str
    authors_copy: str | None = None
    authors_metrics: Mapping[str, float]


POSE = [
    PoseVariant(
        name="uniformer_s_256x192", title="UniFormer-Small, 256x192", depths=SMALL,
        size=(256, 192), params=25_233_489, gmacs=4.69,
        mmpose_file="top_down_256x192_global_small-d4a7fdac_20230724.pth",
        mmpose_sha256="d4a7fdac",
        mmpose_metrics={"AP": 0.740, "AP50": 0.902, "AP75": 0.821, "AR": 0.795, "AR50": 0.941},
        authors_drive_id="162R0JuTpf3gpLe1IK6oxRoQK7JSj4ylx",
        authors_metrics={"AP": 0.740, "AP50": 0.903, "AP75": 0.822, "AR": 0.795},
    ),
    PoseVariant(
        name="uniformer_s_384x288", title="UniFormer-Small, 384x288", depths=SMALL,
        size=(384, 288), params=25_233_489, gmacs=11.10,
        mmpose_file="top_down_384x288_global_small-7a613f78_20230724.pth",
        mmpose_sha256="7a613f78",
        mmpose_metrics={"AP": 0.759, "AP50": 0.906, "AP75": 0.830, "AR": 0.810, "AR50": 0.943},
        authors_drive_id="163vuFkpcgVOthC05jCwjGzo78Nr0eikW",
        authors_metrics={"AP": 0.759, "AP50": 0.906, "AP75": 0.834, "AR": 0.814},
    ),
    PoseVariant(
        name="uniformer_s_448x320", title="UniFormer-Small, 448x320", depths=SMALL,
        size=(448, 320), params=25_233_489, gmacs=14.77,
        mmpose_file="top_down_448x320_global_small-18b760de_20230724.pth",
        mmpose_sha256="18b760de",
        mmpose_metrics={"AP": 0.762, "AP50": 0.906, "AP75": 0.832, "AR": 0.814, "AR50": 0.944},
        authors_drive_id="165nQRsT58SXJegcttksHwDn46Fme5dGX",
        authors_metrics={"AP": 0.762, "AP50": 0.906, "AP75": 0.832, "AR": 0.814},
    ),
    PoseVariant(
        name="uniformer_b_256x192", title="UniFormer-Base, 256x192", depths=BASE, size=(256, 192),
        params=53_464_785, gmacs=9.22,
        mmpose_file="top_down_256x192_global_base-1713bcd4_20230724.pth", mmpose_sha256="1713bcd4",
        mmpose_metrics={"AP": 0.750, "AP50": 0.905, "AP75": 0.830, "AR": 0.804, "AR50": 0.942},
        authors_drive_id="15tzJaRyEzyWp2mQhpjDbBzuGoyCaJJ-2",
        authors_copy="https://ascend-repo-modelzoo.obs.cn-east-2.myhuaweicloud.com/model/"
        "1_PyTorch_PTH/Uniformer/PTH/top_down_256x192_global_base.pth",
        authors_metrics={"AP": 0.750, "AP50": 0.906, "AP75": 0.830, "AR": 0.804},
    ),
    PoseVariant(
        name="uniformer_b_384x288", title="UniFormer-Base, 384x288", depths=BASE, size=(384, 288),
        params=53_464_785, gmacs=22.11,
        mmpose_file="top_down_384x288_global_base-c650da38_20230724.pth", mmpose_sha256="c650da38",
        mmpose_metrics={"AP": 0.767, "AP50": 0.908, "AP75": 0.841, "AR": 0.819, "AR50": 0.946},
        authors_drive_id="15qtUaOR_C7-vooheJE75mhA9oJQt3gSx",
        authors_metrics={"AP": 0.767, "AP50": 0.908, "AP75": 0.840, "AR": 0.814},
    ),
    PoseVariant(
        name="uniformer_b_448x320", title="UniFormer-Base, 448x320", depths=BASE, size=(448, 320),
        params=53_464_785, gmacs=29.61,
        mmpose_file="top_down_448x320_global_base-a05c185f_20230724.pth", mmpose_sha256="a05c185f",
        mmpose_metrics={"AP": 0.774, "AP50": 0.910, "AP75": 0.844, "AR": 0.825, "AR50": 0.949},
        authors_drive_id="156iNxetiCk8JJz41aFDmFh9cQbCaMk3D",
        authors_metrics={"AP": 0.774, "AP50": 0.911, "AP75": 0.844, "AR": 0.825},
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClassifierVariant:
    """A classifier, 224x224; `on_hub` are the authors' repositories that have the file.

    Of these the commits are not known in full, so content is checked by `sha256` alone.
    """

    name: str
    summary: str
    depths: tuple[int, int, int, int]
    head_dim: int = 64
    layer_scale: bool = False
    conv_stem: bool = False
    params: int
    gmacs: float
    top1: float
    file: str
    drive_id: str
    on_hub: tuple[str, ...] = ()
    at_mmpose: bool = False
    sha256: str | None = None


CLASSIFIERS = [
    ClassifierVariant(
        name="uniformer_small", summary="UniFormer-S, ImageNet-1k.", depths=SMALL,
        params=21_545_256, gmacs=3.64, top1=0.829, file="uniformer_small_in1k.pth",
        drive_id="1-uepH3Q3BhTmWU6HK-sGAGQC_MpfIiPD",
        on_hub=("Andy1621/uniformer", "Sense-X/uniformer_image"), at_mmpose=True,
        sha256="fd192c31f8bd77670de8f171111bd51f56fd87e6aea45043ab2edc181e1fa775",
    ),
    ClassifierVariant(
        name="uniformer_small_plus",
        summary="UniFormer-S+ (convolutional stem, head dimension 32), ImageNet-1k.",
        depths=SMALL_PLUS, head_dim=32, conv_stem=True, params=24_032_552, gmacs=4.21, top1=0.834,
        file="uniformer_small_plus_in1k.pth", drive_id="10IN5ULcjz0Ld_lDokkTGOSmRFXLzUkEs",
        on_hub=("Sense-X/uniformer_image",),
        sha256="53bc55180eb750f00b12933c75fefb5f9ee652bea606cd26104b738f0c4c472e",
    ),
    ClassifierVariant(
        name="uniformer_small_plus_dim64",
        summary="UniFormer-S+ with head dimension 64, ImageNet-1k.", depths=SMALL_PLUS,
        conv_stem=True, params=24_032_552, gmacs=4.21, top1=0.834,
        file="uniformer_small_plus_dim64_in1k.pth", drive_id="178ipRvMBKeAP_Fzy6fEr2HQkIQWdgEY6",
    ),
    ClassifierVariant(
        name="uniformer_base", summary="UniFormer-B, ImageNet-1k.", depths=BASE, params=49_776_552,
        gmacs=8.27, top1=0.838, file="uniformer_base_in1k.pth",
        drive_id="1-wT39QazTGELxgrQIu6J12D3qcla3hui",
        on_hub=("Sense-X/uniformer_image",), at_mmpose=True,
        sha256="82c01015818cb897b00a29352043053df53ce4c02c2d012226b3a8a12ccb60eb",
    ),
    ClassifierVariant(
        name="uniformer_base_ls", summary="UniFormer-B with layer scale, ImageNet-1k.",
        depths=BASE, layer_scale=True, params=49_796_520, gmacs=8.27, top1=0.839,
        file="uniformer_base_ls_in1k.pth", drive_id="10FnwzMVgGL8bPO3EMZ7oG4vDvqnPoBK5",
    ),
]  # fmt: skip


def pose_cfgs(variant: PoseVariant) -> dict[str, PretrainedCfg]:
    """Tag `coco` is mmpose's copy and table, `coco_official` the authors' own."""
    height, width = variant.size
    source = SourceCfg(
        addresses=(https(MMPOSE + variant.mmpose_file, publisher=OPENMMLAB),),
        original_filename=variant.mmpose_file,
        original_sha256=variant.mmpose_sha256,
        license="apache-2.0",
        dataset_license="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
        paper=PAPER,
    )
    coco = PretrainedCfg(
        task="pose",
        dataset="coco",
        description="top-down heatmap pose, mmpose's copy of the authors' weights",
        source=source,
        input=InputCfg(size=variant.size, bbox_padding=1.25, geometry="mmpose1"),
        decode=DecodeCfg(
            codec="heatmap",
            heatmap_size=(height // 4, width // 4),
            refine="quarter",
            shift_heatmap=True,
        ),
        metrics=MetricsCfg(
            values=variant.mmpose_metrics,
            protocol="COCO val2017, bbox=det56.4, flip test, float32",
            url="https://github.com/open-mmlab/mmpose/tree/main/projects/uniformer",
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )
    official = replace(
        coco,
        description="top-down heatmap pose, the authors' own files and code (block eps 1e-6)",
        model_args={"block_eps": 1e-6},
        source=replace(
            source,
            addresses=(
                drive(variant.authors_drive_id, publisher=AUTHORS),
                *((https(variant.authors_copy),) if variant.authors_copy else ()),
            ),
            original_filename=None,
            original_sha256=None,
        ),
        input=replace(coco.input, geometry="mmpose0"),
        metrics=MetricsCfg(
            values=variant.authors_metrics,
            protocol="COCO val2017, bbox=det56.4, flip test, float16",
            url="https://github.com/Sense-X/UniFormer/tree/main/pose_estimation",
        ),
    )
    return {"coco": coco, "coco_official": official}


def classifier_cfg(variant: ClassifierVariant) -> PretrainedCfg:
    mmpose = (https(MMPOSE + variant.file, publisher=OPENMMLAB),) if variant.at_mmpose else ()
    addresses: tuple[Address, ...] = (
        *(hub(repository, variant.file, publisher=AUTHORS) for repository in variant.on_hub),
        drive(variant.drive_id, publisher=AUTHORS),
        *mmpose,
    )
    return PretrainedCfg(
        task="classification",
        dataset="in1k",
        description="ImageNet-1k classifier (MIT on the Hub, Apache-2.0 on GitHub)",
        source=SourceCfg(
            addresses=addresses,
            original_filename=variant.file,
            original_sha256=variant.sha256,
            license="mit",
            dataset_license="ImageNet-1k: research and non-commercial terms for the images",
            paper=PAPER,
        ),
        input=InputCfg(size=(224, 224), interpolation="bicubic", crop_pct=0.875),
        metrics=MetricsCfg(
            values={"top1": variant.top1},
            protocol="ImageNet-1k val, 224, crop 0.875 bicubic",
            url="https://github.com/Sense-X/UniFormer/tree/main/image_classification",
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


for _pose in POSE:
    register(
        _pose.name,
        summary=f"{_pose.title}, COCO 17 keypoints.",
        build="posezoo.models.uniformer.network:build_pose",
        fixed={"depths": _pose.depths, "input_size": _pose.size},
        args={
            "num_keypoints": NUM_KEYPOINTS,
            "in_chans": IN_CHANS,
            "drop_path_rate": DROP_PATH_RATE,
            "block_eps": Argument(
                default=1e-5, low=0.0, high=1.0, help="epsilon of the norms in attention blocks"
            ),
        },
        cfgs=pose_cfgs(_pose),
    )

for _classifier in CLASSIFIERS:
    register(
        _classifier.name,
        summary=_classifier.summary,
        build="posezoo.models.uniformer.network:build_classifier",
        fixed={
            "depths": _classifier.depths,
            "head_dim": _classifier.head_dim,
            "layer_scale": _classifier.layer_scale,
            "conv_stem": _classifier.conv_stem,
        },
        args={
            "num_classes": NUM_CLASSES,
            "in_chans": IN_CHANS,
            "drop_path_rate": DROP_PATH_RATE,
        },
        cfgs={"in1k": classifier_cfg(_classifier)},
    )
