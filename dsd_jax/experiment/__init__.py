"""A run of `train` or `evaluate`: set-up, few-shot sweep, evaluation, and the workdir.

A `RunConfig` enters; prompts, scores and a report leave: `setup` loads, `sweep` learns prompts from
every draw of shots, `clip_baseline` does so for CLIP, `evaluation` scores and reports. Commands may
import it.
"""
