"""A small HRNet heatmap model (CVPR 2019, arXiv 1902.09212), trained on rendered people only.

Written for posezoo, Apache-2.0. Its weights come with the package, so that a real prediction can
be seen, and tested, without a network connection; it is no rival to the models beside it. The
trunk is narrow and ends after stage 3; one 1x1 convolution turns its finest map into heatmaps.
"""
