"""PCT: Human Pose as Compositional Tokens (CVPR 2023, arXiv 2303.11638).

Original: Gengzigang/PCT (MIT; its Swin code by Microsoft, MIT). A tokenizer turns a pose of 17
keypoints into 34 discrete tokens, each one of 2048 rows of a codebook, and back; here that token
space has an interface of its own: encode, decode, complete, nearest. A pose model classifies a
crop into those tokens; the mixture of codebook rows that the probabilities make is decoded to
keypoints in input pixels, without heatmaps. The third kind are heatmap models on the same backbone,
from which PCT's training starts. The residual, mixer and Swin blocks are timm's. Written from the
paper and measured behaviour; hidden keypoints are left out by selection instead of multiplication,
so that their coordinates may be anything. Pose models hold only the codebook and the decoder of
the tokenizer, and of the two backbones of the original files only the one that is used.
"""
