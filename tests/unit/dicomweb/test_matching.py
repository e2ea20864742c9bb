"""Search forms."""

import re
import struct
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.matching import (
    consecutive_words,
    date_time_form,
    fits_wildcard,
    fold,
    fold_name,
    name_words,
    search_form,
    time_form,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ABC  \0", "abc"),
        (" ABC", " abc"),
        ("Straße", "strasse"),
        ("Tá", "tá"),
        ("", ""),
        (unicodedata.normalize("NFD", "Tá"), "tá"),
    ],
)
def test_strings_are_compared_without_case_and_trailing_padding(text, expected):
    assert fold(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tá", "ta"),
        ("MÜLLER^Jürgen ", "muller^jurgen"),
        ("Διονυσίου", "διονυσιου"),
        ("やまだ^たろう", "やまだ^たろう"),
        ("がぎぐ", "がぎぐ"),
        ("김희중", "김희중"),
    ],
)
def test_names_are_compared_without_accents_but_with_voicing_marks(text, expected):
    assert fold_name(text) == expected


@given(st.text())
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)
    assert fold_name(fold_name(text)) == fold_name(text)


def test_words_of_a_name_are_cut_at_carets_equals_signs_and_blanks():
    assert name_words("Yamada^Tarou=山田^太郎=やまだ  ^x") == [
        "yamada",
        "tarou",
        "山田",
        "太郎",
        "やまだ",
        "x",
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("joh", True),
        ("do", True),
        ("jo do", True),
        ("Doe", True),
        ("John Doe", True),
        ("ohn", False),
        ("do jo", False),
        ("jo do x", False),
        ("", True),
    ],
)
def test_consecutive_words_must_start_with_the_words_asked_for(query, expected):
    assert consecutive_words(name_words("John^Doe"), name_words(query)) is expected


def test_consecutive_words_may_begin_anywhere_but_have_no_gap():
    words = name_words("anna^maria^von^berg")
    assert consecutive_words(words, ["mar", "von"])
    assert not consecutive_words(words, ["anna", "von"])


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("ct", "c*", True),
        ("ct", "?t", True),
        ("ct", "*", True),
        ("ct", "c?r", False),
        ("ct", "*x", False),
        ("ct", "?", False),
        ("a.c\n", "a.c*", True),
        ("abc", "a.c", False),
        ("", "", True),
        ("", "**", True),
        ("", "?", False),
        ("abab", "*ab", True),
        ("aba", "ab*ba", False),
        ("abcabd", "a*b?", True),
    ],
)
def test_a_wildcard_fits_the_whole_text(text, pattern, expected):
    assert fits_wildcard(text, pattern) is expected


@given(st.text("ab", max_size=8), st.text("ab*?", max_size=8))
def test_wildcards_fit_what_a_regular_expression_fits(text, pattern):
    expression = pattern.replace("*", ".*").replace("?", ".")
    expected = re.fullmatch(expression, text) is not None
    assert fits_wildcard(text, pattern) is expected


def test_no_number_of_wildcards_takes_long():
    assert not fits_wildcard("a" * 5_000, "*a" * 200 + "b")
    assert not fits_wildcard("ct", "*" * 5_000 + "x")


@pytest.mark.parametrize(
    ("vr", "values", "expected"),
    [
        ("LO", ["Abc "], "abc"),
        ("LO", ["  "], None),
        ("LO", [], None),
        ("LO", [None], None),
        ("LO", [None, "x"], None),
        ("CS", ["CT", "MR"], "ct"),
        ("UI", ["1.2.3\0"], "1.2.3"),
        ("PN", [{"Alphabetic": "Doe^Jöhn"}], "doe^john"),
        ("PN", [{"Alphabetic": "A", "Ideographic": "山"}], "a=山"),
        ("PN", [{"Ideographic": "山", "Phonetic": "や"}], "=山=や"),
        ("PN", ["Doe^J"], "doe^j"),
        ("PN", [{}], None),
        ("DA", ["20240229"], "20240229"),
        ("DA", ["20230229"], None),
        ("DA", ["2024.02.29"], None),
        ("DA", ["٢٠٢٤٠٢٢٩"], None),
        ("TM", ["010203.5"], 3_723_500_000),
        ("TM", ["01"], 3_600_000_000),
        ("TM", ["24"], None),
        ("TM", ["01:02:03"], None),
        ("DT", ["2020"], "20200101000000.000000"),
        ("DT", ["20200203040506.7+0100"], "20200203040506.700000"),
        ("DT", ["202013"], None),
        ("DT", ["20200230"], None),
        ("DT", ["2020+1500"], None),
        ("DT", ["2020020325"], None),
        ("IS", ["0003"], 3),
        ("IS", [3], 3),
        ("IS", [3.0], 3),
        ("IS", [3.5], None),
        ("IS", [True], None),
        ("IS", ["x"], None),
        ("IS", ["1_0"], None),
        ("US", [65535], 65535),
        ("FD", [1.1], 1.1),
        ("FD", ["1.1 "], 1.1),
        ("FD", ["NaN"], None),
        ("FD", ["1_0"], None),
        ("FD", [True], None),
        ("FL", [1e300], None),
        ("FL", [{}], None),
        ("DS", ["+1.50"], 1.5),
    ],
)
def test_each_representation_has_its_search_form(vr, values, expected):
    assert search_form(vr, values) == expected


def test_single_precision_numbers_are_found_by_their_decimal_text():
    stored = struct.unpack("<f", struct.pack("<f", 1.1))[0]
    assert search_form("FL", [stored]) == search_form("FL", ["1.1"])


@given(st.datetimes())
def test_date_times_sort_as_the_instants_they_stand_for(moment):
    text = moment.strftime("%Y%m%d%H%M%S.%f").zfill(21)
    assert date_time_form(text) == text


@given(st.integers(0, 86_399_999_999))
def test_times_are_microseconds_since_midnight(microseconds):
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{hour:02}{minute:02}{second:02}.{fraction:06}"
    assert time_form(text) == microseconds
