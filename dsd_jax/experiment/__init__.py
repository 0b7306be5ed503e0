"""A run of `train` or `evaluate`: set-up, few-shot sweep, table, and the folder that it fills.

A `RunConfig` enters; prompts, scores and a report leave. Commands may import it.
"""
