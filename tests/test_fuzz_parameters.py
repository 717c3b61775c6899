"""Any parameter file ends as what its writer reads in it, or in one clear error."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metaseg_nb.parameters import read_parameters, resolve
from metaseg_nb.settings import ParameterError

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
# What looks like a number, a truth value, a date or a name, with what YAML 1.1 makes of it or not.
SCALARS = st.one_of(
    st.integers(-2000, 2000).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"[-+]?[0-9_:.]{1,8}([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(
        ["yes", "no", "on", "off", "true", "True", "TRUE", "~", "null", "0x1f", "0b1", "0o17", "1e3", ".inf"]
    ),
    st.dates().map(str),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "study.yaml"


@QUICK
@given(SCALARS)
@example("010")
@example("1:30.5")
@example("1_000")
@example("2024-01-01")
@example(":")
def test_a_number_is_one_only_where_its_digits_say_so(file, text):
    file.write_text(f"learning_rate: {text}\n", encoding="utf-8")
    try:
        value = read_parameters(file)["learning_rate"]
    except ParameterError as error:
        assert "not YAML" in str(error)
        with pytest.raises(ValueError, match="could not convert"):
            float(text)
        return
    if isinstance(value, bool):
        assert text.lower() == str(value).lower()
    elif isinstance(value, int | float):
        assert value == float(text), "Python reads these digits alike"
    else:
        assert value is None or value == text


@QUICK
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(b"exclude: " + b"[" * 3000)
@example(b"exclude: &a [*a]")
@example(b"? [a, b]\n: 1")
@example(b"study: !!python/object/apply:os.system [ls]")
@example(b"study: demo\n\x00")
def test_any_bytes_are_parameters_or_one_error(file, content):
    file.write_bytes(content)
    try:
        resolve("01_explore_data", str(file))
    except ParameterError as error:
        assert file.name in str(error)


KEYS = ["n_folds", "exclude", "seed", "cohort", "label_threshold", "anonymise"]
LISTS = st.lists(SCALARS).map(lambda parts: f"[{', '.join(parts)}]")


@QUICK
@given(st.dictionaries(st.sampled_from(KEYS), SCALARS | LISTS))
def test_values_of_any_type_are_taken_as_they_stand_or_refused_by_key(file, values):
    lines = [f"{key}: {value}\n" for key, value in {"study": "fuzz", **values}.items()]
    file.write_text("".join(lines), encoding="utf-8")
    try:
        resolved = resolve("01_explore_data", str(file))
    except ParameterError as error:
        assert "not YAML" in str(error) or any(f"key '{key}" in str(error) for key in values), error
        return
    for key in values.keys() - {"exclude"}:
        assert str(resolved[key]).lower() == values[key].lower() or float(resolved[key]) == float(values[key])
