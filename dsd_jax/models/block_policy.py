"""What surrounds a block of layers: what its gradient recomputes, and weights made whole.

Everything a training step keeps of the forward pass costs memory, everything it recomputes costs
operations. `products` recomputes norms, activations and the logits of attention, which are few
operations and most of the memory.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

# everything / results of matrix products, convolutions and attention / each block's input.
REMAT = ("nothing", "products", "blocks")
ATTENDED = "attended"  # the name of attention's results


class Blocks(NamedTuple):
    """How the blocks of a network are run; their numbers are the same.

    remat: what the gradient keeps, one of `REMAT`.
    gather: whether weights are divided over devices, so that each block's have to be made whole
        before use; the gradient does it again rather than keep them. It takes a mesh in context.
    """

    remat: str = "nothing"
    gather: bool = False

    def prepare(self, block: type[nn.Module]) -> type[nn.Module]:
        """The module class run so; its parameters' names stay."""
        if self.gather:
            block = nn.map_variables(block, "params", _whole)
        if self.remat == "products":
            return nn.remat(block, policy=_keep_products)
        return nn.remat(block) if self.remat == "blocks" or self.gather else block


def _whole(weights: Any) -> Any:
    return jax.lax.with_sharding_constraint(weights, PartitionSpec())


def _keep_products(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether a result is kept: large products are, those within attention (batched) are not."""
    if primitive.name == "dot_general":
        (_, _), batch = params["dimension_numbers"]
        return not any(batch)
    if primitive.name == "name":
        return params["name"] == ATTENDED
    return primitive.name == "conv_general_dilated"
