"""UniFormer: Unifying Convolution and Self-attention for Visual Recognition (arXiv 2201.09450).

Pose models: the UniFormer project of mmpose 1.x (Apache-2.0), weights by the authors
(Sense-X/UniFormer, Apache-2.0). Classifiers: Sense-X/UniFormer; Hub card says MIT. Written from
the papers and measured behaviour, with these differences from the originals: maps stay
channels-last, so that tokens, norms and 1x1 convolutions are views or plain matrix products;
attention is fused; in evaluation BatchNorm and the residual of the positional convolution are
folded into the neighbouring weights.
"""
