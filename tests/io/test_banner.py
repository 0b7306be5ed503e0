"""The banner of a command."""

from dsd_jax.io.banner import count_of, format_banner, show_banner


def test_facts_stand_under_each_other_within_80_columns(capfd):
    facts = {"model": "tiny", "score": "word " * 30, "prompts": "", "results": "runs/emoji\x1b"}
    show_banner("train: emoji", facts)
    output = capfd.readouterr()
    assert output.out == "" and output.err == format_banner("train: emoji", facts) + "\n"
    title, model, first, second, third, results = output.err.splitlines()
    assert title == "train: emoji" and model == "  model    tiny"
    assert results == r"  results  runs/emoji\x1b"  # what clears a terminal is shown
    assert second.startswith(" " * 11 + "word") and third.startswith(" " * 11 + "word")
    assert max(map(len, (first, second, third))) <= 80


def test_long_paths_stay_whole():
    path = "/" + "x" * 100
    assert path in format_banner("train", {"results": path})


def test_counts_agree_with_their_nouns():
    assert [count_of(n, "pair") for n in (0, 1, 1200)] == ["0 pairs", "1 pair", "1,200 pairs"]
