"""Learned prompts with all that was learned about them: to score with, to save and to share.

`dsd_jax.learn` and `Prompts.load` make them; every `prompts=` argument takes them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import huggingface_hub
from etils import epath
from huggingface_hub import ModelCard, ModelHubMixin, errors

from dsd_jax.errors import UserError
from dsd_jax.io.hub_errors import fetch_failure, push_failure
from dsd_jax.prompts import lora_files
from dsd_jax.prompts.learning_history import LearningHistory
from dsd_jax.prompts.prompt_card import TAGS, model_card, prompts_html
from dsd_jax.prompts.prompt_compatibility import timesteps_asked
from dsd_jax.prompts.prompt_files import FILES, read_any_prompts, read_metadata, write_prompts
from dsd_jax.prompts.prompt_metadata import PromptMetadata
from dsd_jax.prompts.prompt_params import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMMIT = "Upload prompts learned with dsd_jax"


@dataclass(frozen=True, repr=False, eq=False)
class Prompts(
    ModelHubMixin,
    library_name="dsd_jax",
    tags=TAGS,
    paper_url="https://arxiv.org/abs/2305.10722",
):
    """Learned prompts, and the model, method, timesteps and items that they were learned for.

    Attributes:
        params: a prompts pytree as `prompt_params` describes it; without what was not kept.
        metadata: as in `prompts.json` beside the tensors.
    """

    params: Mapping[str, Any]
    metadata: PromptMetadata

    # The mixin writes it as config.json, by which the Hub counts downloads.
    _hub_mixin_config: ClassVar[Any] = {"library_name": "dsd_jax"}

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Prompts":
        """Return the prompts in a folder that `save`, `train` or `convert` wrote.

        Raises:
            UserError: there are none, or they are damaged.
        """
        where = epath.Path(folder)
        return cls(read_any_prompts(where), read_metadata(where))

    def save(self, folder: str | os.PathLike) -> None:
        """Write the prompts into a folder, as `train` does: for `load` and for --prompts=FOLDER.

        Raises:
            UserError: the folder cannot be written to, or has tensors that another program wrote.
        """
        write_prompts(folder, self.params, self.metadata.stated())

    @property
    def method(self) -> str | None:
        """The method that the prompts were learned for, the first of several; None if unknown."""
        return next(iter(self.metadata.methods), None)

    @property
    def timesteps(self) -> int | None:
        """The number of timesteps that they were learned at; None if unknown."""
        return timesteps_asked(self.metadata.timesteps)

    @property
    def verdict(self) -> str:
        """The judgement of the held-out items on what was learned, in words."""
        metadata = self.metadata
        if metadata.verdicts:
            return "; ".join(map(str, metadata.verdicts))
        if metadata.refused:
            return metadata.refused
        if metadata.kept_step:
            return f"kept step {metadata.kept_step}"
        if self.params:
            return "learned elsewhere: nothing is known of held-out items"
        return "nothing gained enough on held-out items: the frozen model stays"

    @property
    def history(self) -> LearningHistory:
        """The held-out loss by step; empty where nothing was trained in steps."""
        return LearningHistory.of(self.metadata)

    def plot(self) -> "Figure":
        """Return a figure of the held-out loss by step; raises `UserError` if there is none."""
        return self.history.plot()

    def to_diffusers(self, folder: str | os.PathLike) -> Path:
        """Write the LoRA for `pipeline.load_lora_weights(folder)`; return the file.

        Raises:
            UserError: there is no LoRA, or the folder cannot be written to.
        """
        if not self.params.get("lora"):
            others = " and ".join(sorted(self.params)) or "nothing"
            raise UserError(
                f"the prompts hold {others}, no LoRA, which alone has a form in diffusers "
                f"({self.verdict})."
            )
        lora_files.write_diffusers(Path(folder), self.params["lora"])
        return Path(folder) / lora_files.DIFFUSERS

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the prompts with a model card to a repository on the Hub; return its address.

        Args:
            repo_id: "org/name" or "name"; made where it is missing.
            options: `private`, `token`, `commit_message` and all else that
                `huggingface_hub.ModelHubMixin.push_to_hub` takes.

        Raises:
            UserError: nobody is logged in, the token may not write there, or the Hub can't be
                reached.
        """
        settings: dict[str, Any] = {"commit_message": _COMMIT} | options
        card = {"repo": repo_id} | (settings.pop("model_card_kwargs", None) or {})
        try:
            return str(super().push_to_hub(repo_id, model_card_kwargs=card, **settings))
        except UserError:
            raise
        except Exception as error:  # the Hub's client lets its HTTP library's own errors through
            raise UserError(f"{push_failure(repo_id, error)}.") from error

    @classmethod
    def from_pretrained(cls, where: str | os.PathLike, **options: Any) -> "Prompts":
        """Return the prompts in a folder, or in a repository on the Hub.

        Args:
            where: a folder, or "org/name" on the Hub.
            options: `revision`, `token`, `cache_dir`, `force_download` and `local_files_only`, as
                `huggingface_hub.hf_hub_download` takes them.

        Raises:
            UserError: there are no prompts, they are damaged, or the Hub does not give them.
        """
        if Path(where).is_dir():
            return cls.load(where)
        return cls._from_pretrained(model_id=str(where), **options)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Prompts":
        try:
            files = [huggingface_hub.hf_hub_download(model_id, name, **options) for name in FILES]
        except errors.EntryNotFoundError as error:
            raise UserError(
                f"{model_id} holds no prompts: {' or '.join(FILES)} is missing; name a repository "
                "that Prompts.push_to_hub made."
            ) from error
        except Exception as error:  # as in `push_to_hub`
            raise UserError(f"{fetch_failure(model_id, model_id, error)}.") from error
        return cls.load(Path(files[0]).parent)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)
        if self.params.get("lora"):
            self.to_diffusers(save_directory)

    def generate_model_card(self, *args: Any, repo: str = "", **kwargs: Any) -> ModelCard:
        """Return the model card: what the prompts are, how they were learned, how to use them."""
        return model_card(self, repo)

    def __repr__(self) -> str:
        return f"Prompts({self.summary}; {self.verdict})"

    @property
    def summary(self) -> str:
        """The parts that were learned, from how many pairs and for which scores."""
        about = self.metadata
        kinds = " and ".join(describe(self.params)) or "nothing kept"
        shots = f" from {about.shots} pairs" if about.shots else ""
        count = self.timesteps
        at = f" at {count} timesteps" if count else ""
        scores = f" for {' and '.join(about.methods)}{at}" if about.methods else ""
        return f"{kinds}{shots}{scores} of {about.weights or 'an unknown model'}"

    def _repr_html_(self) -> str:
        return prompts_html(self)
