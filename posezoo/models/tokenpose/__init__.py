"""TokenPose: Learning Keypoint Tokens for Human Pose Estimation (ICCV 2021, arXiv 2104.03516),
and TMPose: Token Masked Pose Transformers Are Efficient Learners (CMC 83(2), 2025,
doi 10.32604/cmc.2025.059006).

Originals: leeyegy/TokenPose and lshua98/tmpose. Neither has a licence and neither published
weights; the networks are written from the papers and measured behaviour. A TMPose network is a
TokenPose network in which only some of the visual tokens take part: same parameters, same
checkpoints, so both are one class here and the mask can be changed at run time. Differences: kept
tokens keep their own positions (`mask_pos="token"`; the published code gives the j-th kept token
the j-th position, as `mask_pos="slot"` does); a random mask is drawn per sample in training and
is one fixed list in evaluation, where the published code draws again at every call; masked tokens
are left out before they are embedded, which gives the same numbers for less; the last layer
computes the keypoint tokens only, as nothing else leaves it (multiply-adds in the configurations
are those of the whole layer, 0.4 to 6 % more than are done); the fixed table of positions is
computed, not stored, and a checkpoint's copy is ignored; the trunk is timm's HRNet up to stage 3,
its BatchNorm folded in evaluation.
"""
