"""Time, chance, environment and processes come in through the constructor, and every exception has a reason."""

from __future__ import annotations

import pytest

from tests.tidy.allowed import ALLOWED, Allowed
from tests.tidy.bans import BANNED, banned_references, idle_allowances
from tests.tidy.source import modules, report, snippet


@pytest.mark.slow(reason="reads the whole tree")
def test_the_project_uses_no_banned_name() -> None:
    assert (found := report(each for module in modules() for each in banned_references(module))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_allowance_is_still_needed() -> None:
    assert (found := report(idle_allowances(modules()))) == "", found


@pytest.mark.slow(reason="reads the whole tree")
def test_every_allowance_names_one_ban_and_gives_a_reason() -> None:
    names = {ban.name for ban in BANNED}
    for each in ALLOWED:
        assert each.name in names, each
        assert len(each.reason.split()) >= 3, each
    assert len({(each.path, each.name) for each in ALLOWED}) == len(ALLOWED)


@pytest.mark.parametrize(
    "bad",
    [
        "import time\ntime.time()",
        "import time\nf(key=time.time)",
        "import time as t\nt.sleep(1)",
        "from time import sleep\nsleep(1)",
        "from time import time as now\nnow()",
        "from datetime import datetime\ndatetime.now()",
        "from datetime import datetime as dt, UTC\ndt.now(UTC)",
        "import datetime\ndatetime.datetime.utcnow()",
        "from datetime import date\ndate.today()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid4\nuuid4()",
        "import random\nrandom.choice([1])",
        "from random import randint\nrandint(1, 2)",
        "import random\nrandom.Random(1)",
        "import secrets\nsecrets.token_hex()",
        "import os\nos.urandom(16)",
        "import os\nos.environ['HOME']",
        "import os\nos.environ.get('HOME')",
        "from os import environ\nenviron['HOME']",
        "import os\nos.getenv('HOME')",
        "import subprocess\nsubprocess.run(['ls'])",
        "from subprocess import Popen\nPopen(['ls'])",
        "import os\nos.system('ls')",
        "import pickle\npickle.loads(b'')",
        "print('hello')",
        "breakpoint()",
    ],
)
def test_a_bad_snippet_is_found_once_and_told_what_to_use(bad: str) -> None:
    (offence,) = banned_references(snippet(bad))
    assert " is banned here: " in offence.what


@pytest.mark.parametrize(
    "good",
    [
        "import time\ntime.monotonic()",
        "from datetime import datetime, UTC\ndatetime(2026, 1, 1, tzinfo=UTC)",
        "import uuid\nuuid.UUID('0' * 32)",
        "import os\nos.path.join('a', 'b')",
        "class Report:\n    def print(self): ...\nReport().print()",
        "clock.time()\nself.random.choice()",
        "def f(print):\n    print('x')",
        "text = 'time.time() is banned'",
    ],
)
def test_a_good_snippet_passes(good: str) -> None:
    assert list(banned_references(snippet(good))) == []


def test_tests_may_print_and_run_programs_but_never_sleep_or_draw_unseeded() -> None:
    path = "tests/unit/core/test_x.py"
    assert list(banned_references(snippet("import subprocess\nsubprocess.run([])\nprint()", path=path))) == []
    assert list(banned_references(snippet("import random\nrandom.Random(7).choice([1])", path=path))) == []
    assert len(list(banned_references(snippet("import time\ntime.sleep(0.1)", path=path)))) == 1
    assert len(list(banned_references(snippet("import random\nrandom.choice([1])", path=path)))) == 1


def test_an_allowance_covers_its_file_and_name_only() -> None:
    allowed = [Allowed(path="src/holdfast/lab/tools.py", name="subprocess.", reason="owns the tools")]
    bad = "import subprocess\nsubprocess.run([])"
    assert list(banned_references(snippet(bad, path="src/holdfast/lab/tools.py"), allowed=allowed)) == []
    assert len(list(banned_references(snippet(bad, path="src/holdfast/lab/other.py"), allowed=allowed))) == 1
    printing = snippet("print()", path="src/holdfast/lab/tools.py")
    assert len(list(banned_references(printing, allowed=allowed))) == 1


def test_an_allowance_for_a_folder_covers_what_is_below() -> None:
    allowed = [Allowed(path="src/holdfast/cli/", name="print", reason="a face prints")]
    assert list(banned_references(snippet("print()", path="src/holdfast/cli/pool.py"), allowed=allowed)) == []


def test_an_allowance_that_nothing_needs_is_found() -> None:
    allowed = [Allowed(path="src/holdfast/cli/", name="print", reason="a face prints")]
    assert len(list(idle_allowances([snippet("x = 1")], allowed=allowed))) == 1
    assert list(idle_allowances([snippet("print()", path="src/holdfast/cli/pool.py")], allowed=allowed)) == []
