"""Loading costs little more than the parameters, and refusing costs next to nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dsd_jax.models.components import UNET
from tests.synthetic import Shapes, torch_shapes, write_zeros

PROGRAM = """
import json, sys, time
import jax
from dsd_jax.errors import UserError
from dsd_jax import load

def kilobytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))

jax.devices()
before, start = kilobytes("VmRSS"), time.process_time()
message = size = ""
try:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(load(sys.argv[1]).params))
except UserError as error:
    message = str(error)
seconds, peak = time.process_time() - start, 1024 * (kilobytes("VmHWM") - before)
print(json.dumps({"peak": peak, "seconds": seconds, "size": size, "message": message}))
"""


def run(folder: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def widen(folder, channels: list[int], groups: int) -> Shapes:
    """Gives the folder's UNet that many channels; returns what its weights must be."""
    file = folder.path / "unet" / "config.json"
    config = json.loads(file.read_text())
    config |= {"block_out_channels": channels, "norm_num_groups": groups}
    file.write_text(json.dumps(config))
    return torch_shapes(UNET, config)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_while_loading_fp16(folder):
    write_zeros(folder.file("unet"), widen(folder, [96, 192, 384, 384], 32))
    result = run(folder.path)
    assert result["message"] == ""
    assert result["size"] > 250e6
    assert result["peak"] < 2.5 * result["size"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_one_missing_tensor_of_a_full_size_unet_is_found_in_seconds(folder):
    shapes = widen(folder, [320, 640, 1280, 1280], 32)
    del shapes["conv_in.bias"]
    write_zeros(folder.file("unet"), shapes)
    result = run(folder.path)
    assert "unet: 1 missing\n  - conv_in.bias (320,)" in result["message"]
    assert result["seconds"] < 15  # of processor time, as the machine may be busy
    assert result["peak"] < 400e6, result
