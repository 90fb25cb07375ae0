"""``train --help`` lists every key of a recipe, at once."""

import re
import subprocess
import sys

import pytest

from proxybyte.training.run.config import TrainConfig
from proxybyte.training.run.config_io import key_table
from proxybyte.training.settings import known_fields, section_of

VALUES = {key: field for key, field in known_fields(TrainConfig).items() if section_of(field.annotation) is None}


@pytest.fixture(scope="module")
def table():
    return key_table()


@pytest.mark.parametrize("key", VALUES)
def test_every_key_has_a_line_with_default_and_meaning(table, key):
    (line,) = re.findall(rf"^    {re.escape(key)} +(.*)$", table, re.MULTILINE)
    first_word = str(VALUES[key].description).split()[0]
    assert re.search(rf"\S +{re.escape(first_word)}", line)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("optimizer.lr", "0.001 +peak learning rate"),
        ("output", "required +run folder"),
        ("learning_rate.shape", r"cosine .*\(cosine,"),
        ("compute.compile", "false +compile"),
        ("log.trackers", r"\[tensorboard\] +where"),
        ("model.preset", "none +name of a size"),
    ],
)
def test_defaults_are_shown_as_a_recipe_spells_them(table, key, words):
    assert re.search(rf"^    {re.escape(key)} +{words}", table, re.MULTILINE)


def test_the_command_shows_the_table_without_importing_torch(table):
    script = (
        "import sys\nfrom proxybyte.cli import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert table in said
    assert said.splitlines()[-1] == "False False"


def test_no_line_is_wider_than_a_wide_terminal(table):
    assert max(map(len, table.splitlines())) <= 120
