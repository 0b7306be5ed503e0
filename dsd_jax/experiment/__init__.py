"""A run of `train` or `evaluate`: set-up, few-shot sweep, evaluation, and the workdir.

A `RunConfig` enters; prompts, scores and a report leave. Commands may import it.
"""
