"""TokenPose's and TMPose's architectures; only posezoo's own weights exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ...zoo.arguments import IN_CHANS, NUM_KEYPOINTS, Argument
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

MaskType = Literal["none", "uniform", "random", "zone", "block"]
MaskPos = Literal["token", "slot"]

WIDTH = 192  # of a token
TOKENPOSE_PAPER = "arXiv:2104.03516"
TMPOSE_PAPER = "doi:10.32604/cmc.2025.059006"
NO_WEIGHTS = "the authors published no weights"
PPT_FITS = f"{NO_WEIGHTS} (files of the PPT project, HowieMa/PPT, fit; they carry no licence)"

MASK_ARGS = {
    "mask_type": Argument(
        default="uniform", choices=get_args(MaskType), help="which visual tokens are kept"
    ),
    "mask_ratio": Argument(
        default=1.0, above=0.0, high=1.0, help="share of the visual tokens that is kept"
    ),
    "mask_pos": Argument(
        default="token", choices=get_args(MaskPos), help="whose position a kept token has"
    ),
    "mask_eval": Argument(default=True, help="whether the mask applies in evaluation too"),
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """What sets a network apart; sizes are (H, W).

    Attributes:
        trunk: "stem" of HRNet or, up to stage 3, "hrnet_xs", "hrnet_s", "hrnet_w32" or
            "hrnet_w48"; None cuts patches out of the image itself.
        trunk_words: the same for a reader.
        patch: size of a visual token in cells of the trunk's map.
        depths: layers of each stack.
        scale_width: q . k is divided by the root of it. Quirk: the S models take the whole width,
            whatever the heads; the others the width of a head.
    """

    trunk: str | None
    trunk_words: str
    patch: tuple[int, int]
    depths: tuple[int, ...]
    num_heads: int
    scale_width: int
    input_size: tuple[int, int] = (256, 192)
    params: int


T = Network(
    trunk=None, trunk_words="patches of the image", patch=(16, 12), depths=(12,), num_heads=16,
    scale_width=WIDTH // 16, params=5_816_448,
)  # fmt: skip
S_V1 = Network(
    trunk="stem", trunk_words="stem of HRNet", patch=(4, 3), depths=(12,), num_heads=8,
    scale_width=WIDTH, params=6_620_736,
)  # fmt: skip
S_V2 = replace(S_V1, patch=(2, 2), params=6_227_520)
B = Network(
    trunk="hrnet_w32", trunk_words="HRNet-W32 to stage 3", patch=(4, 3), depths=(12,), num_heads=8,
    scale_width=WIDTH // 8, params=13_465_216,
)  # fmt: skip
L_D6 = Network(
    trunk="hrnet_w48", trunk_words="HRNet-W48 to stage 3", patch=(4, 3), depths=(2, 2, 2),
    num_heads=8, scale_width=WIDTH // 8, params=20_815_776,
)  # fmt: skip
L_D6_MPII = replace(L_D6, patch=(4, 4), input_size=(256, 256), params=21_443_296)
L_D18 = replace(L_D6, depths=(6, 6, 6), params=25_260_192)
L_D24 = replace(L_D6, depths=(8, 8, 8), num_heads=12, scale_width=WIDTH // 12, params=27_482_400)
L_D24_LARGE = replace(L_D24, patch=(6, 4), input_size=(384, 288), params=29_808_672)
XS = Network(
    trunk="hrnet_xs", trunk_words="a narrow HRNet to stage 3", patch=(4, 3), depths=(4,),
    num_heads=8, scale_width=WIDTH // 8, input_size=(128, 96), params=2_413_536,
)  # fmt: skip
S_192 = replace(
    XS,
    trunk="hrnet_s",
    trunk_words="the trunk of HRNet-S",
    input_size=(192, 144),
    params=3_645_504,
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that models were trained on, with the arguments its models need."""

    name: str
    keypoints: str
    terms: str
    model_args: Mapping[str, Any] = field(default_factory=dict)


COCO = Dataset(
    name="coco",
    keypoints="COCO 17 keypoints",
    terms="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
)
MPII = Dataset(
    name="mpii",
    keypoints="MPII 16 joints",
    terms="MPII: for research, not commercial use",
    model_args={"num_keypoints": 16},
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An architecture whose authors published no weights.

    Attributes:
        gmacs: true multiply-adds.
        reported: what the authors' counter says, which takes the number of tokens for the width
            of linear layers.
        quoted: metrics in the table of GTPT.
    """

    name: str
    title: str
    remark: str = ""
    network: Network
    dataset: Dataset = COCO
    gmacs: float
    reported: float
    unavailable: str = NO_WEIGHTS
    quoted: Mapping[str, float] | None = None

    @property
    def summary(self) -> str:
        return f"{self.title}, {self.dataset.keypoints}{self.remark}."


TOKENPOSE = [
    Variant(
        name="tokenpose_t_256x192", title="TokenPose-T, 256x192", network=T, gmacs=1.60,
        reported=1.29,
    ),
    Variant(
        name="tokenpose_s_v1_256x192", title="TokenPose-S-v1, 256x192", network=S_V1, gmacs=2.73,
        reported=2.23, unavailable=PPT_FITS, quoted={"AP": 0.725, "AR": 0.780},
    ),
    Variant(
        name="tokenpose_s_v2_256x192", title="TokenPose-S-v2, 256x192", network=S_V2, gmacs=7.49,
        reported=11.62,
    ),
    Variant(
        name="tokenpose_b_256x192", title="TokenPose-B, 256x192", network=B, gmacs=6.28,
        reported=5.66, unavailable=PPT_FITS, quoted={"AP": 0.747, "AR": 0.800},
    ),
    Variant(
        name="tokenpose_l_d6_256x192", title="TokenPose-L/D6, 256x192",
        remark="; MPII's configuration at COCO's size", network=L_D6, gmacs=9.87, reported=9.06,
    ),
    Variant(
        name="tokenpose_l_d24_256x192", title="TokenPose-L/D24, 256x192", network=L_D24,
        gmacs=12.19, reported=10.98,
    ),
    Variant(
        name="tokenpose_l_d24_384x288", title="TokenPose-L/D24, 384x288", network=L_D24_LARGE,
        gmacs=24.01, reported=22.14,
    ),
    Variant(
        name="tokenpose_l_d6_256x256", title="TokenPose-L/D6, 256x256", network=L_D6_MPII,
        dataset=MPII, gmacs=12.89, reported=11.86,
    ),
]  # fmt: skip

# with the published mask, and the costs at its ratio
TMPOSE = [
    Variant(
        name="tmpose_b_256x192", title="TMPose-B, 256x192", network=B, gmacs=5.60, reported=4.87,
    ),
    Variant(
        name="tmpose_l_d6_256x192", title="TMPose-L/D6, 256x192",
        remark=". Quirk: the file called D6 has 18 layers", network=L_D18, gmacs=10.41,
        reported=9.17,
    ),
    Variant(
        name="tmpose_l_d24_256x192", title="TMPose-L/D24, 256x192", network=L_D24, gmacs=10.85,
        reported=9.42,
    ),
    Variant(
        name="tmpose_l_d6_256x256", title="TMPose-L/D6, 256x256", network=L_D6_MPII, dataset=MPII,
        gmacs=12.54, reported=11.47,
    ),
]  # fmt: skip
TMPOSE_MASK = {"mask_type": "random", "mask_ratio": 0.6}


def unpublished_cfgs(variant: Variant, *, is_masked: bool = False) -> dict[str, PretrainedCfg]:
    """Return one configuration, whose tag is the data set; `is_masked` is TMPose."""
    network = variant.network
    note = ", 60 % of the visual tokens" if is_masked else ""
    mask = TMPOSE_MASK if is_masked else {}
    metrics = None
    if variant.quoted is not None:
        metrics = MetricsCfg(
            values=variant.quoted,
            protocol="COCO val2017, detector boxes, as quoted in the table of GTPT",
            url="https://github.com/haonanwang0522/GTPT",
        )
    cfg = PretrainedCfg(
        task="pose",
        dataset=variant.dataset.name,
        description=f"keypoint tokens on {network.trunk_words}, {sum(network.depths)} layers"
        f"{note}; reported as {variant.reported} GFLOPs",
        model_args={**mask, **variant.dataset.model_args},
        source=SourceCfg(
            unavailable=variant.unavailable,
            dataset_license=variant.dataset.terms,
            paper=TMPOSE_PAPER if is_masked else TOKENPOSE_PAPER,
        ),
        input=input_of(network),
        decode=decode_of(network, blur_kernel=11),
        metrics=metrics,
        params=network.params,
        macs=round(variant.gmacs * 1e9),
    )
    return {variant.dataset.name: cfg}


def input_of(network: Network) -> InputCfg:
    return InputCfg(size=network.input_size, bbox_padding=1.25, geometry="tokenpose")


def decode_of(network: Network, blur_kernel: int) -> DecodeCfg:
    height, width = network.input_size
    return DecodeCfg(
        codec="heatmap",
        heatmap_size=(height // 4, width // 4),
        refine="dark",
        blur_kernel=blur_kernel,
    )


# posezoo's own weights, for demos and tests; the trunk is that of hrnet_xs_128x96.rendered
RENDERED = PretrainedCfg(
    task="pose",
    dataset="coco",
    description=f"keypoint tokens on {XS.trunk_words}, 4 layers; rendered people, no photos",
    source=SourceCfg(
        packaged="tokenpose_xs_128x96.rendered.safetensors",
        sha256="180d6f5367127a110566f36a931214d942a3209a6d7391d361b139e3a96b31dc",
        license="apache-2.0",
        dataset_license="rendered by posezoo.synthetic, no terms",
        paper=TOKENPOSE_PAPER,
    ),
    input=input_of(XS),
    decode=decode_of(XS, blur_kernel=7),
    params=XS.params,
    macs=286_500_000,
)

BODIES = PretrainedCfg(
    task="pose",
    dataset="coco",
    description=f"keypoint tokens on {S_192.trunk_words}, 4 layers, 60 % of the visual tokens; "
    "rendered bodies, no photos",
    model_args=TMPOSE_MASK,
    source=SourceCfg(
        packaged="tmpose_s_192x144.bodies.safetensors",
        sha256="fcab8137af40fe923757a56c07516c04aff277e5816bf56b1fcfade309287231",
        license="apache-2.0",
        dataset_license="rendered by posezoo.synthetic from the bodies of anny (Apache-2.0, CC0), "
        "no photos",
        paper=TMPOSE_PAPER,
    ),
    input=input_of(S_192),
    decode=decode_of(S_192, blur_kernel=9),
    params=S_192.params,
    macs=762_500_000,
)


def register_network(
    name: str, summary: str, network: Network, cfgs: Mapping[str, PretrainedCfg]
) -> None:
    register(
        name,
        summary=summary,
        build="posezoo.models.tokenpose.network:build_pose",
        fixed={
            "trunk": network.trunk,
            "input_size": network.input_size,
            "patch": network.patch,
            "depths": network.depths,
            "num_heads": network.num_heads,
            "scale_width": network.scale_width,
        },
        args={"num_keypoints": NUM_KEYPOINTS, "in_chans": IN_CHANS, **MASK_ARGS},
        cfgs=cfgs,
    )


for _variant in TOKENPOSE:
    register_network(_variant.name, _variant.summary, _variant.network, unpublished_cfgs(_variant))
for _variant in TMPOSE:
    register_network(
        _variant.name,
        _variant.summary,
        _variant.network,
        unpublished_cfgs(_variant, is_masked=True),
    )
register_network(
    "tokenpose_xs_128x96",
    "TokenPose-XS, 128x96, COCO 17 keypoints, rendered people.",
    XS,
    {"rendered": RENDERED},
)
register_network(
    "tmpose_s_192x144",
    "TMPose-S, 192x144, COCO 17 keypoints, rendered bodies.",
    S_192,
    {"bodies": BODIES},
)
