import pickle

import pytest

from dsd_jax.data.plain_pickle import read_pickle
from dsd_jax.errors import UserError


class Malicious:
    """As pickled, it asks for a file to be made when it is read."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    content = [{"a": [1, 2.5, None, True], "ü": ("b", 2**70)}]
    (tmp_path / "x.p").write_bytes(pickle.dumps(content, protocol))
    assert read_pickle(tmp_path / "x.p") == content


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_pickle_is_executed(tmp_path, protocol):
    victim = tmp_path / "victim"
    content = pickle.dumps([{"refs": Malicious(victim)}], protocol)
    pickle.loads(content)[0]["refs"].close()
    assert victim.exists()  # the pickle does its work where it is trusted
    victim.unlink()
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(UserError, match=r"refs.p is no pickle of plain .*it asks for \S+open\)"):
        read_pickle(tmp_path / "refs.p")
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(list(range(99)))[:-9]])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "x.p").write_bytes(content)
    with pytest.raises(UserError, match="x.p is no pickle of plain lists and texts"):
        read_pickle(tmp_path / "x.p")


def test_what_lies_outside_the_file_is_refused(tmp_path):
    (tmp_path / "x.p").write_bytes(b"Pelsewhere\n.")
    with pytest.raises(UserError, match="it refers to elsewhere"):
        read_pickle(tmp_path / "x.p")
