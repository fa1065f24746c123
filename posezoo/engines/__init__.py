"""Exported networks: what their files say about themselves, and the engines that run them.

An engine runs the network only; crop, flip test and decoding are the predictor's own.
"""
