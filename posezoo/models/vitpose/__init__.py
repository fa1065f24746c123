"""ViTPose (arXiv 2204.12484) and ViTPose+ (arXiv 2212.04246): plain vision transformers.

Original: ViTAE-Transformer/ViTPose (Apache-2.0); the weights, Apache-2.0, are those that the
University of Sydney keeps on the Hub. The networks are written from the papers and measured
behaviour. Transformer blocks are timm's; those of ViTPose+ have an MLP whose last layer is partly
shared by all data sets and partly an expert of one.
"""
