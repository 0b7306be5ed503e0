"""The scoring engine: from images and captions to UNet calls, their outputs, and scores.

Read `match_scores` (a matrix of scores from images and captions), `batching` (pairs to UNet calls,
their outputs joined), `call_plan` (which pairs share a call), `forward` (one call of the UNet) and
`score_functions` (outputs to scores); then `attention_maps` (where a word is), `score_maps` (where
a caption scores higher than another) and `plot_heatmaps`, which draws both. A loaded model,
captions and prompts enter; outputs per pair, scores and maps leave. `benchmarks`, `few_shot` and
commands may import it.
"""
