"""What subfolders tell of a model."""

import pytest

from dsd_jax.errors import UserError
from dsd_jax.weights.folder_layout import parts, refuse_others

SD = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
XL = (*SD, "text_encoder_2", "tokenizer_2")


@pytest.mark.parametrize("folders", [SD, XL])
def test_parts_of_each_family(folders):
    assert set(parts([*folders, "safety_checker"])) == set(folders)
    refuse_others(folders, "here")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("transformer", *XL[1:]), "^here has a transformer/ instead of a unet/, as Stable Diff"),
        (("unet", "movq", "scheduler"), "^here has a movq/, as Kandinsky has; dsd_jax reads"),
        (set(XL) - {"text_encoder", "tokenizer"}, "it is SDXL's refiner, which only finishes"),
    ],
)
def test_other_architectures(folders, message):
    with pytest.raises(UserError, match=message) as error:
        refuse_others(folders, "here")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
