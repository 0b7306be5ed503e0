"""Files of `torch.save`: the same numbers as PyTorch reads and writes, and no code runs."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from dsd_jax.errors import UserError
from dsd_jax.tensor_files import pickle_file

WAYS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "protocol 4": {"pickle_protocol": 4},
}


def state_dict():
    """All float types, views of shared memory, and what a module's state dict has besides."""
    numbers = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = torch.nn.Linear(2, 3).state_dict()  # an OrderedDict with attributes
    tensors |= {
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": numbers.half(),
        "bfloat": numbers.bfloat16(),
        "double": numbers.double(),
        "long": torch.arange(3),
        "shared": numbers,
        "transposed": numbers.permute(2, 0, 1),
        "part": numbers[1, ::2, 1:],
        "expanded": numbers[0, 0, :1].expand(1),
        "scalar": torch.tensor(4.0),
        "empty": torch.zeros(0, 3),
    }
    return tensors


def assert_read(file, expected):
    found = pickle_file.read(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert str(tensor.dtype) == f"torch.{found[name].dtype}"
        assert found[name].shape == tuple(tensor.shape) and found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name].astype(np.float64), tensor.detach().double())


@pytest.mark.parametrize("way", WAYS)
def test_the_same_as_pytorch(tmp_path, way):
    tensors = state_dict()
    torch.save(tensors, tmp_path / "x.bin", **WAYS[way])
    assert_read(tmp_path / "x.bin", tensors)


@pytest.mark.parametrize("name", ["tiny-sd15", "tiny-sd21"])
def test_adapters_of_the_authors(golden_folder, name):
    file = golden_folder(name) / "lora" / "pytorch_model.bin"
    assert_read(file, torch.load(file, weights_only=True))


class Harm:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "harm",
    [
        lambda file: Harm(os.mkdir, str(file)),
        lambda file: Harm(eval, f"__import__('os').mkdir({str(file)!r})"),
        lambda file: Harm(getattr, "", "join"),
    ],
)
def test_no_code_runs(tmp_path, way, harm):
    """In a value, and as a storage's key, where PyTorch itself would look first."""
    for content in ({"a": harm(tmp_path / "made")}, harm(tmp_path / "made")):
        torch.save(content, tmp_path / "x.bin", **WAYS[way])
        message = r"x.bin names \w+\.\w+, which no file of tensors needs and which could run code"
        with pytest.raises(UserError, match=message):
            pickle_file.read(tmp_path / "x.bin")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("way", WAYS)
def test_truncated(tmp_path, way):
    torch.save(state_dict(), tmp_path / "x.bin", **WAYS[way])
    content = (tmp_path / "x.bin").read_bytes()
    for end in [14, 15, len(content) // 3, len(content) // 2, len(content) - 1]:
        (tmp_path / "x.bin").write_bytes(content[:end])
        with pytest.raises(UserError, match=r"x.bin is damaged, cut off .*; fetch it again\.$"):
            pickle_file.read(tmp_path / "x.bin")


def test_a_flipped_bit(tmp_path):
    torch.save({"a": torch.ones(100)}, tmp_path / "x.bin")
    content = bytearray((tmp_path / "x.bin").read_bytes())
    content[content.index(np.ones(100, np.float32).tobytes()) + 7] ^= 1
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match="x.bin is damaged.*CRC"):
        pickle_file.read(tmp_path / "x.bin")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", [[torch.ones(2)], {"a": 1}, {"a": {"b": torch.ones(2)}}, {}, 5])
def test_not_a_state_dict(tmp_path, way, content):
    torch.save(content, tmp_path / "x.bin", **WAYS[way])
    with pytest.raises(UserError, match="not of a state dict.*(no dict of tensors|is no tensor)"):
        pickle_file.read(tmp_path / "x.bin")


class Tensor:
    """Pickled as a tensor with such a view of a storage of four numbers."""

    def __init__(self, offset, shape, strides):
        self.view = offset, shape, strides

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Storage(), *self.view, False, OrderedDict())


class Storage:
    pass


class Pickler(pickle.Pickler):
    def persistent_id(self, item):
        if isinstance(item, Storage):
            return "storage", torch.FloatStorage, "0", "cpu", 4
        return None


def write_view(file, *view, data=b"\0" * 16, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        with archive.open("x/data.pkl", "w") as stream:
            Pickler(stream, 2).dump({"a": Tensor(*view)})
        archive.writestr("x/data/0", data)


def test_views(tmp_path):
    write_view(tmp_path / "x.bin", 1, (3,), (1,), data=np.arange(4, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(pickle_file.read(tmp_path / "x.bin")["a"], [1, 2, 3])


@pytest.mark.parametrize(
    "view",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2,), (4,)),
        (-1, (1,), (1,)),
        (3, (2,), (-1,)),
        (0, (10_000,), (0,)),  # of little in the file and as much here as one likes
        (0, (2, 2), (1,)),
        (0, ("2",), (1,)),
    ],
)
def test_views_that_reach_beyond_the_storage(tmp_path, view):
    write_view(tmp_path / "x.bin", *view)
    with pytest.raises(UserError, match="x.bin is damaged"):
        pickle_file.read(tmp_path / "x.bin")


def test_storages_of_another_size_or_compressed(tmp_path):
    write_view(tmp_path / "x.bin", 0, (2,), (1,), data=b"\0" * 12)
    with pytest.raises(UserError, match="x.bin is damaged.*a has 12 bytes"):
        pickle_file.read(tmp_path / "x.bin")
    write_view(tmp_path / "x.bin", 0, (2,), (1,), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="x.bin is damaged.*is compressed"):
        pickle_file.read(tmp_path / "x.bin")


def test_other_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(UserError, match="x.bin is damaged.*no data.pkl"):
        pickle_file.read(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"\x93NUMPY\x01", "is not a file that torch.save writes"),
        (b"version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer"),
        (b"<html>", "is a web page"),
        (b"hello", "is a text file"),
        (pickle.dumps({"a": 1}, 2), "is damaged.*a pickle, but not torch's"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match=f"x.bin {message}"):
        pickle_file.read(tmp_path / "x.bin")


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
def test_plain_data(protocol):
    stream = io.BytesIO(pickle.dumps(DATA, protocol) + b"next")
    assert pickle_file.unpickle(stream) == DATA
    assert stream.read() == b"next"


def write_program(file, program):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/data/0", bytes(16))


@pytest.mark.parametrize(
    "program",
    [
        b"I1\n.",  # an instruction of protocol 0
        b"(ios\nsystem\n.",  # INST, which calls what it names
        b"\x80\x02(cos\nsystem\no.",  # OBJ likewise
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # a name by number
        b"\x80\x04\x8f(K\x01\x90.",  # a set
        b"\x80\x02N2.",  # DUP
    ],
)
def test_other_instructions_are_refused(tmp_path, program):
    write_program(tmp_path / "x.bin", program)
    message = r"x.bin (uses the pickle instruction \w+|names os.system), which no file of tensors"
    with pytest.raises(UserError, match=message):
        pickle_file.read(tmp_path / "x.bin")


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85tR"
)
NAMED = b"\x80\x02}X\x01\x00\x00\x00a"


def test_a_tensor_by_hand(tmp_path):
    write_program(tmp_path / "x.bin", NAMED + TENSOR + b"s.")
    np.testing.assert_array_equal(pickle_file.read(tmp_path / "x.bin")["a"], np.zeros(4))


# Tuples of the last one twice, 60 deep: of a size that only sharing makes possible.
BOMB = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))


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
        b"\x80\x02}" + BOMB + b"Ns.",  # as a key, for ever
        b"\x80\x02}" + BOMB.replace(b"\x86q", b"\x86Nbq") + b"Ns.",
        NAMED + BOMB + b"s.",  # as a value, in a message
        b"\x80\x02Nr\xff\xff\xff\xff.",  # kept under a number that takes 64 GiB of memory
        b"\x80\x02B\xff\xff\xff\x7f.",  # two GiB of bytes
        NAMED + TENSOR.replace(b"K\x04\x85K", b"K\x04\x85\x85K") + b"s.",  # of a tuple's shape
        NAMED + TENSOR + b"}X\x04\x00\x00\x00viewX\x01\x00\x00\x00bsbs.",  # an attribute
        b"\x80\x02ctorch\nFloatStorage\n}b.",  # of a type
        NAMED + b"ctorch._utils\n_rebuild_parameter\nNK\x01\x85Rs.",
    ],
)
def test_damaged_programs(tmp_path, program):
    write_program(tmp_path / "x.bin", program)
    with pytest.raises(
        UserError, match=r"x\.bin (is damaged|uses the pickle instruction)"
    ) as error:
        pickle_file.read(tmp_path / "x.bin")
    assert len(str(error.value)) < 500
    assert len(pickle_file._FUNCTIONS) == 3


def test_functions_keep_their_attributes(tmp_path):
    """A pickle that sets attributes of what it names changes nothing for the next one."""
    keys = b"X\x0c\x00\x00\x00__defaults__)s"
    function = b"ctorch._utils\n_rebuild_tensor_v2\nN}" + keys + b"\x86b"
    write_program(tmp_path / "x.bin", NAMED + function + b"s.")
    with pytest.raises(UserError, match=r"x\.bin is damaged"):
        pickle_file.read(tmp_path / "x.bin")
    test_a_tensor_by_hand(tmp_path)


NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
WRITTEN = {
    "a.weight": NUMBERS,
    "ä": NUMBERS[0].T,
    "half": NUMBERS.astype(np.float16),
    "scalar": np.float32(5),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("weights_only", [True, False])
def test_pytorch_reads_what_is_written(tmp_path, weights_only):
    (tmp_path / "x.bin").write_bytes(pickle_file.state_dict_bytes(WRITTEN))
    for found in (
        torch.load(tmp_path / "x.bin", weights_only=weights_only),
        torch.load(tmp_path / "x.bin", weights_only=weights_only, mmap=True),
        pickle_file.read(tmp_path / "x.bin"),
    ):
        assert list(found) == list(WRITTEN)
        for name, array in WRITTEN.items():
            assert str(found[name].dtype).endswith("float32")
            assert tuple(found[name].shape) == array.shape
            np.testing.assert_array_equal(np.asarray(found[name]), array)
