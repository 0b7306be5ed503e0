"""The machine does what Python's own does with data, and nothing else."""

import io
import pickle
from collections import OrderedDict

import pytest

from dsd_jax.tensor_files.pickle_program import RefusedError, run

DATA = {
    "a": [1, -70_000, 2**40, 0.5],
    "b": (),
    "c": (1,),
    "d": (1, 2),
    "e": (1, 2, 3),
    "f": (1,) * 5,
}
DATA |= {"long": "x" * 300, "constants": [None, True, False], "same": [DATA["a"], DATA["a"]], 7: {}}


@pytest.mark.parametrize("protocol", [2, 4])
def test_data(protocol):
    stream = io.BytesIO(pickle.dumps(DATA, protocol) + b"next")
    assert run(stream, {}) == DATA
    assert stream.read() == b"next"


@pytest.mark.parametrize("protocol", [2, 4])
def test_names_are_looked_up(protocol):
    """The value is what the table says, whatever Python has by that name."""
    data = pickle.dumps(OrderedDict(a=1), protocol)
    assert run(io.BytesIO(data), {"collections.OrderedDict": lambda: {"ours": 2}}) == {
        "ours": 2,
        "a": 1,
    }
    with pytest.raises(RefusedError, match="names collections.OrderedDict"):
        run(io.BytesIO(data), {})


def test_persistent_ids():
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return len(item) if isinstance(item, str) else None

    stream = io.BytesIO()
    Pickler(stream, 2).dump([1, "abc"])
    assert run(io.BytesIO(stream.getvalue()), {}, lambda key: ("id", key)) == [1, ("id", 3)]


@pytest.mark.parametrize(
    "program",
    [
        b"I1\n.",  # an instruction of protocol 0
        b"(ios\nsystem\n.",  # INST, which calls what it names
        b"\x80\x02(cos\nsystem\no.",  # OBJ likewise
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # a name by number
    ],
)
def test_other_instructions_are_refused(program):
    with pytest.raises(RefusedError, match=r"uses the pickle instruction \w+|names os.system"):
        run(io.BytesIO(program), {})


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80\x02.",  # no result
        b"\x80\x02NN.",  # two
        b"\x80\x02t.",  # a tuple without a mark
        b"\x80\x02h\x07.",  # from an empty memo
        b"\x80\x02(NNs.",  # an item of a tuple's mark
        b"\x80\x02NK\x01R.",  # a call of None
        b"\x80\x02})Ns.",  # a key that is a tuple
        b"\x80\x02N\x85",  # no end
    ],
)
def test_damage(program):
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        run(io.BytesIO(program), {})
