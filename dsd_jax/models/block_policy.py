"""The rematerialization and all-gather policy of a network's blocks.

What a training step keeps of the forward pass costs memory; what it recomputes costs operations.
`products` recomputes norms, activations and the logits of attention, which are few operations and
most of the memory.
"""

from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

# What is recomputed for the gradient: nothing / all but the results of matrix products,
# convolutions and attention / all but each block's input.
REMAT = ("nothing", "products", "blocks")
ATTENDED = "attended"  # the checkpoint name of attention's results
Block = TypeVar("Block", bound=type[nn.Module])


class BlockPolicy(NamedTuple):
    """A way to run the blocks of a network; it does not change their results.

    Attributes:
        remat: what is recomputed for the gradient, one of `REMAT`.
        gather: whether params are sharded over devices, so that each block's are gathered before
            use, and gathered again for the gradient. It takes a mesh in context.
    """

    remat: str = "nothing"
    gather: bool = False

    def prepare(self, block: Block) -> Block:
        """Return the module class with the policy applied; its params keep their names."""
        block = self.gathered(block)
        if self.remat == "products":
            return nn.remat(block, policy=_keep_products)
        return nn.remat(block) if self.remat == "blocks" or self.gather else block

    def gathered(self, block: Block) -> Block:
        """Return the module class with its params gathered, for layers that are not recomputed.

        Where a layer's params were left to the compiler, its outputs would be divided like these.
        """
        return nn.map_variables(block, "params", _all_gather) if self.gather else block


def _all_gather(params: Any) -> Any:
    return jax.lax.with_sharding_constraint(params, PartitionSpec())


def _keep_products(primitive: Any, *_: Any, **params: Any) -> bool:
    """Return whether to keep a result: large products, but not those of attention (batched)."""
    if primitive.name == "dot_general":
        (_, _), batch = params["dimension_numbers"]
        return not any(batch)
    if primitive.name == "name":
        return params["name"] == ATTENDED
    return primitive.name == "conv_general_dilated"
