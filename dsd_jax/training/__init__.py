"""What all training shares: the loop, checkpoints, early stopping, losses and the metrics log.

Step functions and states enter; trained states leave. Imports `io`, `distributed` and `statistics`;
`few_shot`, `clip` and `pretraining` may import it.
"""
