"""The demo as a Hugging Face Space, which shows what is served at port 7860."""

from dsd_jax.cli import run_command
from dsd_jax.demo import main

run_command(main, ["--host=0.0.0.0", "--port=7860"])
