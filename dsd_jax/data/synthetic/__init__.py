"""Scenes of emoji and captions that are true of them, made from seeds.

A `numpy.random.Generator` enters; scenes, captions and uint8 images leave. It imports nothing of
the package's; `data`'s readers, `pretraining` and the builders of assets may import it.
"""
