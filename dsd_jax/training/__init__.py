"""The parts that all training shares: the loop, checkpoints, early stopping, losses, the log.

States, update functions and batches enter; trained states leave. The loop (`loop.fit`) saves on
SIGTERM and resumes; `few_shot_fit.fit_few_shot` adds held-out checks; the veto on params that gain
too little is `early_stopping.is_gain`. Imports `io`, `distributed` and `statistics`; `few_shot`,
`clip` and `pretraining` may import it.
"""
