"""Files are whole or not there, whoever writes them, and how often at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.storage import write_file


def test_several_hosts_write_one_file_at_once(tmp_path):
    file = epath.Path(tmp_path / "scores.npz")
    contents = [bytes([number]) * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as hosts:
        list(hosts.map(lambda content: [write_file(file, content) for _ in range(50)], contents))
    assert file.read_bytes() in contents
    assert [place.name for place in tmp_path.iterdir()] == ["scores.npz"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "report.md").mkdir()
    with pytest.raises(UserError, match="report.md cannot be written"):
        write_file(epath.Path(tmp_path / "report.md"), "text")
    assert [place.name for place in tmp_path.iterdir()] == ["report.md"]
