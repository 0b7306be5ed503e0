"""LoRA adapters of PyTorch (diffusers, PEFT, kohya, the paper's authors) to prompts and back.

A file, a folder of prompts or a model's name enters, whose kind `conversion_source` finds out;
`adapter_files` reads adapters, the authors' `.bin` among them; prompts of the kind "lora" leave,
which `prompts.lora_files` writes for PyTorch. Imports `weights`, `prompts` and `tensor_files`;
only the command `convert` imports it.
"""
