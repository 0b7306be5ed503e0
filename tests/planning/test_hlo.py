"""A program's text: how often computations run, its products and its communication."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dsd_jax.planning.collectives import Collective, read_collectives
from dsd_jax.planning.groups import read_groups
from dsd_jax.planning.hlo import array_bytes, array_shape, count_runs, read_program
from dsd_jax.planning.products import executed_flops

# As a TPU's compiler writes it, with what we don't read left out: a loop of 12 turns by its
# condition, an all-gather in it that is in three computations, a loop of 3 turns inside.
TPU = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "step.py"

%start.1 (param.1: bf16[256,1024]) -> (bf16[256,1024], bf16[1024,1024]) {
  %param.1 = bf16[256,1024]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[1024,1024]{1,0:T(8,128)(2,1)} all-gather(%param.1), channel_id=9, \
replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}, \
dimensions={0}, use_global_device_ids=true, metadata={op_name="a -> b, calls=%x" stack_frame_id=15}
  ROOT %custom-call.1 = (bf16[256,1024]{1,0}, bf16[1024,1024]{1,0}) custom-call(%all-gather.1)
}

%meanwhile.1 (param.2: bf16[256,1024]) -> bf16[1024,1024] {
  %param.2 = bf16[256,1024]{1,0} parameter(0)
  %all-gather.2 = bf16[1024,1024]{1,0} all-gather(%param.2), channel_id=9, \
replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_0'}
  ROOT %convolution.1 = bf16[1024,64]{1,0} convolution(%all-gather.2, %fusion.9), \
dim_labels=bf_oi->bf
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

%inner_body (param.3: (s32[], f32[64])) -> (s32[], f32[64]) {
  %param.3 = (s32[]{:T(128)}, f32[64]{0}) parameter(0)
  %all-reduce.1 = (f32[64]{0}, f32[]{:T(128)}) all-reduce(%x.1, /*index=1*/%x.2), channel_id=7, \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
}

%inner_condition (param.4: (s32[], f32[64])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(3)
  ROOT %lt.1 = pred[]{:T(512)} compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (param.5: (s32[], f32[64])) -> (s32[], f32[64]) {
  %x.1 = f32[64]{0} parameter(0)
  %x.2 = f32[]{:T(128)} constant(0)
  %fusion.9 = bf16[64,1024]{1,0} fusion(%x.1), kind=kLoop, calls=%start.1
  %fusion.1 = bf16[1024,64]{1,0} fusion(%x.1), kind=kOutput, calls=%meanwhile.1
  %while.1 = (s32[]{:T(128)}, f32[64]{0}) while(%tuple.1), condition=%inner_condition, \
body=%inner_body
}

%condition (param.6: (s32[], f32[64])) -> pred[] {
  %constant.2 = s32[]{:T(128)} constant(12)
  ROOT %lt.2 = pred[]{:T(512)} compare(%get-tuple-element.2, %constant.2), direction=LT
}

ENTRY %main.6_spmd (param.7: f32[64]) -> f32[64] {
  %param.7 = f32[64]{0} parameter(0)
  %permute.1 = (f32[64]{0}, f32[64]{0}, u32[]) collective-permute-start(%param.7), channel_id=3, \
source_target_pairs={{0,4},{4,0}}
  %permute.2 = f32[64]{0} collective-permute-done(%permute.1)
  %while.2 = (s32[], f32[64]{0}) while(%tuple.2), condition=%condition, body=%body
}
"""


def test_tpu_program():
    program = read_program(TPU)
    runs = count_runs(program)
    assert program.entry == "main.6_spmd" and runs.unknown_loops == 0
    assert runs.times["body"] == 12 and runs.times["inner_body"] == 36
    found = read_collectives(program, runs, [0, 0, 0, 0, 1, 1, 1, 1])
    assert found == (
        Collective("all-gather", 12, 2 * 1024 * 1024, 4, False),
        Collective("all-reduce", 36, 65 * 4, 2, False),
        Collective("collective-permute", 1, 64 * 4, 2, True),
    )
    assert found[1].total == 36 * 260
    assert executed_flops(program, runs) == 12 * 2 * 1024 * 1024 * 64


def test_groups_decide_what_crosses_hosts():
    program = read_program(TPU)
    runs = count_runs(program)
    found = read_collectives(program, runs, [0, 0, 1, 1, 2, 2, 3, 3])
    assert [one.across_hosts for one in found] == [True, False, True]


def test_loops_of_unknown_length_count_once_and_are_reported():
    program = read_program(TPU.replace("constant(12)", "parameter(1)"))
    runs = count_runs(program)
    assert runs.unknown_loops == 1 and runs.times["inner_body"] == 3


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        (None, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("{}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ],
)
def test_groups(text, groups):
    np.testing.assert_array_equal(read_groups(text, 8), groups)


@pytest.mark.parametrize("text", ["{{0,1},{2}}", "mesh['a'=4] {'a':(1)2}", "something else"])
def test_groups_that_cannot_be_read(text):
    assert read_groups(text, 8) is None


@pytest.mark.parametrize(
    ("shape", "size", "sides"),
    [
        ("bf16[1,1024,64]{2,1,0:T(8,128)(2,1)S(1)}", 2 * 1024 * 64, (1, 1024, 64)),
        ("f32[]{:T(128)}", 4, ()),
        ("(f32[2]{0}, s32[3]{0}, token[])", 20, (2,)),
        ("pred[5]", 5, (5,)),
        ("s4[10]", 5, (10,)),
        ("f8e4m3fn[7]", 7, (7,)),
    ],
)
def test_shapes(shape, size, sides):
    assert array_bytes(shape) == size and array_shape(shape) == sides


def test_the_text_of_a_loop_on_this_machine():
    def run(ws, x):
        return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, ws)[0]

    args = (jnp.zeros((5, 64, 64)), jnp.zeros((32, 64)))
    program = read_program(jax.jit(run).lower(*args).compile().as_text())
    runs = count_runs(program)
    assert max(runs.times.values()) == 5 and runs.unknown_loops == 0
    assert executed_flops(program, runs) == 5 * 2 * 32 * 64 * 64


@pytest.mark.parametrize("side", [1, 2])
def test_convolutions_as_xla_counts_them(side):
    def run(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (side, 1), ((1, 0), (2, 1)), dimension_numbers=numbers
        )

    compiled = jax.jit(run).lower(jnp.zeros((2, 9, 8, 4)), jnp.zeros((3, 3, 4, 6))).compile()
    program = read_program(compiled.as_text())
    flops = executed_flops(program, count_runs(program))
    assert flops == compiled.cost_analysis()["flops"] > 0
