"""The sizes and weights of ViTPose and ViTPose+."""

from __future__ import annotations

from dataclasses import dataclass

from ...zoo.address import hub
from ...zoo.arguments import DROP_PATH_RATE, IN_CHANS, NUM_KEYPOINTS, Argument
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.registry import register

EXPERTS = ("coco", "aic", "mpii", "ap10k", "apt36k", "coco_wholebody")  # in the files' order

_NORM_EPS = Argument(
    default=1e-12,
    low=0.0,
    high=1e-2,
    # Quirk: files on the Hub state none, and transformers' 1e-12 is what they are run with there;
    # the authors trained with 1e-6. Heatmaps differ by about 1e-6 of their spread.
    help="epsilon of the layer norms; the authors had 1e-6",
)
_EXPERT = Argument(
    default="coco",
    choices=EXPERTS,
    help="the data set whose expert layers are used",
)
_README = "https://github.com/ViTAE-Transformer/ViTPose#results-from-this-repo-on-ms-coco-val-set"
_PUBLISHER = "University of Sydney, usyd-community on the Hub"
_PAPER = "arXiv:2204.12484"
_PAPER_PLUS = "arXiv:2212.04246"


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """One file of weights on the Hub, with what its authors report."""

    tag: str
    repository: str
    revision: str
    sha256: str | None  # None: no independent record of the content at this revision was found
    trained_on: str
    ap: float
    ar: float


@dataclass(frozen=True, kw_only=True)
class _Variant:
    """One architecture; `gmacs` and `params` are counted with posezoo."""

    name: str
    title: str
    dim: int
    depth: int
    num_heads: int
    expert_dim: int | None = None
    simple_head: bool = False
    params: int
    gmacs: float
    weights: tuple[_Weights, ...]


_TERMS = "COCO: annotations CC BY 4.0, images under mixed Flickr licences"
_MORE_TERMS = {
    "coco_aic_mpii": "; MPII: no commercial use; AI Challenger: its own terms",
    "six": "; MPII: no commercial use; COCO-WholeBody annotations: CC BY-NC 4.0, research and "
    "non-commercial use only; AI Challenger, AP-10K, APT-36K: their own terms",
}
_COCO = "COCO"
_SIX = "COCO, AI Challenger, MPII, AP-10K, APT-36K and COCO-WholeBody"

_VARIANTS = (
    _Variant(
        name="vitpose_b_simple_256x192",
        title="ViTPose-B, simple decoder",
        dim=768,
        depth=12,
        num_heads=12,
        simple_head=True,
        params=85_912_337,
        gmacs=17.46,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-base-simple",
                revision="a93ac0c67e0b7e2c55287d21d4c460c8f3c54d45",
                sha256="85375373893ddd3641f3912821073e53f5435f9e966e1dca59d004454bfe4fdf",
                trained_on=_COCO,
                ap=0.755,
                ar=0.809,
            ),
        ),
    ),
    _Variant(
        name="vitpose_b_256x192",
        title="ViTPose-B",
        dim=768,
        depth=12,
        num_heads=12,
        params=89_994_513,
        gmacs=18.52,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-base",
                revision="95be2991424e646950d656bb7fc15ec9be119700",
                sha256="cd9a4e6cefc33c51ddcc32dd509fc4114b5845256463a69a10ea2dfde402b2f8",
                trained_on=_COCO,
                ap=0.758,
                ar=0.811,
            ),
            _Weights(
                tag="coco_aic_mpii",
                repository="usyd-community/vitpose-base-coco-aic-mpii",
                revision="1c97abb299207947767d028bf349c543ae06a49f",
                sha256=None,
                trained_on="COCO, AI Challenger and MPII",
                ap=0.771,
                ar=0.822,
            ),
        ),
    ),
    _Variant(
        name="vitpose_plus_s_256x192",
        title="ViTPose+-S",
        dim=384,
        depth=12,
        num_heads=12,
        expert_dim=96,
        params=33_143_697,
        gmacs=5.59,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-plus-small",
                revision="0c30b6534bb621af0162b481176742577264e36e",
                sha256="f7bad8ed09eeeb2a7de6b38faaa8a88d07838e23e9c06a2a782099bca7467cb9",
                trained_on=_SIX,
                ap=0.758,
                ar=0.826,
            ),
        ),
    ),
    _Variant(
        name="vitpose_plus_b_256x192",
        title="ViTPose+-B",
        dim=768,
        depth=12,
        num_heads=12,
        expert_dim=192,
        params=125_395_473,
        gmacs=18.52,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-plus-base",
                revision="92be54d7a29e42fad47b6e2ca01dd9e685a61e0d",
                sha256="640225e4a9dd544239f1da0ae36af865a6e76e21e5f33a12656aa7b77fa5a5fa",
                trained_on=_SIX,
                ap=0.770,
                ar=0.826,
            ),
        ),
    ),
    _Variant(
        name="vitpose_plus_l_256x192",
        title="ViTPose+-L",
        dim=1024,
        depth=24,
        num_heads=16,
        expert_dim=256,
        params=434_404_625,
        gmacs=61.57,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-plus-large",
                revision="e211df377e49c89dba508ab3e83ddef13c0832b4",
                sha256=None,
                trained_on=_SIX,
                ap=0.786,
                ar=0.841,
            ),
        ),
    ),
    _Variant(
        name="vitpose_plus_h_256x192",
        title="ViTPose+-H",
        dim=1280,
        depth=32,
        num_heads=16,
        expert_dim=320,
        params=899_404_049,
        gmacs=125.83,
        weights=(
            _Weights(
                tag="coco",
                repository="usyd-community/vitpose-plus-huge",
                revision="9f36d7aec1800d23e97f10c2e74393aee92aa53f",
                sha256="0ecb49f1ab0b18cc2f18446b8100442cec88bd99dd53779ad5a7f8c71aa08506",
                trained_on=_SIX,
                ap=0.794,
                ar=0.848,
            ),
        ),
    ),
)


def _cfg(variant: _Variant, weights: _Weights) -> PretrainedCfg:
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=f"heatmap pose on a plain transformer, trained on {weights.trained_on}",
        source=SourceCfg(
            addresses=(
                hub(
                    weights.repository,
                    "model.safetensors",
                    revision=weights.revision,
                    publisher=_PUBLISHER,
                ),
            ),
            original_filename="model.safetensors",
            original_sha256=weights.sha256,
            license="apache-2.0",
            dataset_license=_TERMS
            + _MORE_TERMS.get("six" if weights.trained_on == _SIX else weights.tag, ""),
            paper=_PAPER if variant.expert_dim is None else _PAPER_PLUS,
        ),
        input=InputCfg(size=(256, 192), bbox_padding=1.25, geometry="udp"),
        decode=DecodeCfg(codec="heatmap", heatmap_size=(64, 48), refine="dark_udp", blur_kernel=11),
        metrics=MetricsCfg(
            values={"AP": weights.ap, "AR": weights.ar},
            protocol="COCO val2017, bbox=det56.4, flip test, UDP",
            url=_README,
        ),
        params=variant.params,
        macs=round(variant.gmacs * 1e9),
    )


for _variant in _VARIANTS:
    register(
        _variant.name,
        summary=f"{_variant.title}, 256x192, COCO 17 keypoints.",
        build="posezoo.models.vitpose.network:build_pose",
        fixed={
            "input_size": (256, 192),
            "dim": _variant.dim,
            "depth": _variant.depth,
            "num_heads": _variant.num_heads,
            "expert_dim": _variant.expert_dim,
            "simple_head": _variant.simple_head,
        }
        | ({"expert": None} if _variant.expert_dim is None else {}),
        args={
            "num_keypoints": NUM_KEYPOINTS,
            "in_chans": IN_CHANS,
            "drop_path_rate": DROP_PATH_RATE,
            "norm_eps": _NORM_EPS,
        }
        | ({} if _variant.expert_dim is None else {"expert": _EXPERT}),
        cfgs={w.tag: _cfg(_variant, w) for w in _variant.weights},
    )
