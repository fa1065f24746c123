"""TCFormer: Not All Tokens Are Equal (CVPR 2022, arXiv 2204.08680; TPAMI 2024, 2407.11321).

Original: zengwang430521/TCFormer (Apache-2.0), weights by the authors; a second training of the
pose model by mmpose 0.x (Apache-2.0). A pyramid whose tokens are merged by clustering instead of
on a grid: after stage 1 a token is a region of free shape, a set of cells of the initial grid
(input / 4). Written from the paper and measured behaviour, with these differences: clustering
draws no noise in evaluation (`density_noise=1e-6` brings it back), orders equal densities by token
index and takes distances below the resolution of the arithmetic for zero, so that results depend
neither on the batch nor on the number of threads; features move between tokens and maps by tables
of rows, built once per stage, instead of sparse matrix products; distances are never stored as a
whole matrix; the aggregation weight of a token is carried per token, not per cell; and the
original's maps of the coarser levels of the neck, which nothing reads, are not made.
"""
