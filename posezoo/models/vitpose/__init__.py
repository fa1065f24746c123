"""ViTPose (arXiv 2204.12484) and ViTPose+ (arXiv 2212.04246): plain vision transformers.

The weights, Apache-2.0, are those that the University of Sydney keeps on the Hub. The networks
are written from the papers and measured behaviour, on timm's transformer block.
"""
