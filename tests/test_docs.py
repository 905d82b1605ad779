"""Everything that README and docs mention exists: commands, options, columns, links. The examples run.

No tracked file may contain a registry host or a path of a machine.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from needed import import_or_skip

import fairdedup
from fairdedup.api import DECISION_COLUMNS, deduplicate
from fairdedup.cli import cli
from fairdedup.config import RunConfig
from fairdedup.preparation.stage_records import FILES
from fairdedup.stages.caption_embedding import read_captions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES_OF_PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
PAGES = {path: path.read_text(encoding="utf-8") for path in FILES_OF_PAGES}
RUN_DIRECTORY = PAGES[ROOT / "docs" / "run-directory.md"]
COMMANDS = [
    line.partition("#")[0].strip()
    for text in PAGES.values()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def block(text: str, language: str) -> str:
    """Return the first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"no {language} block"
    return found[1]


def section(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of its level or above."""
    level = heading.partition(" ")[0]
    rest = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


def first_cells(table: str) -> list[str]:
    """Return the names in backticks of the first column of a table."""
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that code hosts make for a page's headings."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_names_make_run_and_make_test_and_every_command_is_a_target() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#)", README))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "test", "check", "soak"} <= named
    assert named <= targets


def test_continuous_integration_runs_the_readme_s_own_test_command() -> None:
    script = ROOT / ".ci" / "run"
    last = [line for line in script.read_text(encoding="utf-8").splitlines() if "make " in line][-1]
    assert re.search(r"make check test\b", last)
    assert script.stat().st_mode & 0o111


def test_continuous_integration_cannot_skip_the_site_and_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\nexport CI=true\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ntest: $(INSTALLED) $(SITE_TOOLS)\n" in makefile
    assert "'.[docs]'" in makefile.split("\n$(SITE_TOOLS): $(INSTALLED)\n")[1]
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ModuleNotFoundError):
        import_or_skip("no_such_package")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        import_or_skip("no_such_package")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_relative_link_resolves(page: Path) -> None:
    text = PAGES[page]
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert links
    for link in links:
        if re.match(r"[a-z]+://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_option_of_run_is_documented() -> None:
    known = [flag for parameter in cli.commands["run"].params for flag in (*parameter.opts, *parameter.secondary_opts)]
    options = {flag for flag in known if flag.startswith("--")}
    documented = set(re.findall(r"`(--[a-z-]+)", section(RUN_DIRECTORY, "## Options")))
    assert options - {"--help"} == documented


def test_every_key_of_the_configuration_is_documented() -> None:
    keys = re.findall(r"^\| (?:`--[a-z-]+`|INPUT) \| `([a-z_]+)`", section(RUN_DIRECTORY, "## Options"), re.MULTILINE)
    assert sorted(keys) == sorted(RunConfig.model_fields)


def test_options_that_are_no_key_are_the_last_four_of_the_table() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \|(.*?)\|", section(RUN_DIRECTORY, "## Options"), re.MULTILINE)
    without = [flag for flag, _ in rows if flag[2:].replace("-", "_") not in RunConfig.model_fields]
    assert without == [flag for flag, key in rows if not key.strip()] == [flag for flag, _ in rows[-4:]]
    assert "but for the last four here" in section(RUN_DIRECTORY, "## Options")


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("fairdedup ")])
def test_commands_of_the_documentation_have_options_that_exist(command: str) -> None:
    _, name, *words = shlex.split(command)
    known = {flag for parameter in cli.commands[name].params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_column_of_the_decisions_is_documented_in_order() -> None:
    assert first_cells(section(RUN_DIRECTORY, "### decisions")) == list(DECISION_COLUMNS)


def test_every_file_at_the_top_of_a_run_is_documented() -> None:
    assert set(FILES) <= set(first_cells(section(RUN_DIRECTORY, "## The run directory")))


def test_the_python_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "embeddings.npy", rng.standard_normal((200, 16)))
    np.save(tmp_path / "prototypes.npy", rng.standard_normal((2, 16)))
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec(block(README, "python"), known)
    result = known["result"]
    assert isinstance(result, fairdedup.Result)
    assert len(result.kept) == 100


def test_the_join_of_the_documentation_finds_representatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.repeat(np.random.default_rng(0).standard_normal((20, 8)), 2, axis=0)
    result = deduplicate(x, keep=0.5, rule="semdedup", ids=[f"picture-{k}" for k in range(40)])
    folder = tmp_path / "fairdedup-run" / "decisions"
    folder.mkdir(parents=True)
    result.decisions.to_parquet(folder / "part-00000.parquet")
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    exec(block(RUN_DIRECTORY, "python"), known)
    pairs = known["pairs"]
    assert isinstance(pairs, pd.DataFrame)
    # Rows 2k and 2k + 1 are copies, and the lower one stays.
    assert pairs["id"].tolist() == [f"picture-{k}" for k in range(1, 40, 2)]
    assert pairs["id_kept"].tolist() == [f"picture-{k}" for k in range(0, 40, 2)]


def test_the_prototypes_example_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(block(RUN_DIRECTORY, "yaml"), encoding="utf-8")
    assert list(read_captions(file).attributes["perceived age"].concepts) == ["young", "older"]


def test_modules_that_the_design_names_exist() -> None:
    table = section(PAGES[ROOT / "docs" / "design.md"], "## The house")
    names = re.findall(r"`([a-z_/]+(?:\.py|/))`", "\n".join(line.split("|")[1] for line in re.findall(r"\|.*", table)))
    assert len(names) > 20
    for name in names:
        assert (ROOT / "fairdedup" / name).exists(), name


def test_paths_that_contributing_names_exist() -> None:
    text = PAGES[ROOT / "CONTRIBUTING.md"]
    names = set(re.findall(r"`([\w./-]+(?:\.(?:py|md|json)|/))`", text)) - {"decisions/", "kept/"}  # these are in a run
    assert len(names) > 30
    for name in sorted(names):
        assert (ROOT / name).exists(), name


def test_commands_of_contributing_are_targets_and_options_that_exist() -> None:
    shown = "".join(re.findall(r"```sh\n(.*?)```", PAGES[ROOT / "CONTRIBUTING.md"], re.DOTALL))
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"test", "check", "soak"} <= set(re.findall(r"^make ([a-z]+)", shown, re.MULTILINE)) <= set(targets)
    golden = (ROOT / "tests" / "golden.py").read_text(encoding="utf-8")
    flags = set(re.findall(r"(--[a-z-]+)", PAGES[ROOT / "CONTRIBUTING.md"].partition("## A refactoring")[2]))
    assert {"--out", "--check", "--pin"} <= flags
    assert all(f'add_argument("{flag}"' in golden for flag in flags)


def test_tables_of_the_pages_are_those_of_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import IN_A_LINE, PLACE, TABLE_PAGES, fill_tables

    for page in TABLE_PAGES:
        text = page.read_text(encoding="utf-8")
        assert PLACE.search(text) or IN_A_LINE.search(text)
        # At the beginning of a line a comment makes the line HTML, in which Markdown is not read.
        assert not re.search(r"^<!-- \w+: \w+ -->.", text, re.MULTILINE)
        assert fill_tables(text) == text, f"{page.name}: run python benchmarks/tables.py"


def test_places_on_the_pages_are_filled_in_lines_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import figure_texts
    import tables

    found = {"commands": {"run of the sample (2,405 pictures)": {"seconds": 12.4}}, "dtype": {"times as fast": 0.125}}
    monkeypatch.setattr(tables, "read_results", lambda name: found)
    monkeypatch.setitem(tables.KINDS, "sample", lambda results: ["| a |", "|---|"])
    page = "It takes <!-- sample_seconds: x -->9 s<!-- end --> here.\n<!-- sample: x -->\nold\n<!-- end -->\n"
    filled = page.replace("9 s", "12 seconds").replace("old", "| a |\n|---|")
    assert tables.fill_tables(page) == tables.fill_tables(filled) == filled
    assert figure_texts.write_bfloat16_gain(found) == "8.0 times as long a batch"
    assert figure_texts.list_words(["a"]) == "a" and figure_texts.list_words(["a", "b", "c"]) == "a, b and c"


def test_the_doctor_of_the_page_shows_the_versions_that_are_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    (shown,) = re.findall(r"^ok    packages +(.*), \.\.\.$", PAGES[ROOT / "docs" / "install.md"], re.MULTILINE)
    versions = [part.split(" ") for part in shown.split(", ")]
    assert len(versions) > 3
    for name, version in versions:
        assert pins[name.replace("_", "-")] == version, name


def test_the_picture_is_whole_and_loads_nothing() -> None:
    for file in (ROOT / "docs" / "img").glob("*.svg"):
        root = ElementTree.parse(file).getroot()
        for element in root.iter():
            assert not element.tag.endswith(("script", "image", "foreignObject"))
            assert all(v.startswith("#") for k, v in element.attrib.items() if k.endswith("href"))
        assert "url(" not in file.read_text(encoding="utf-8")


def test_the_changelog_has_a_section_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(fairdedup.__version__)}\b.*\n\n- \S", text, re.MULTILINE)


def test_the_citation_names_this_version_and_both_papers() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    citation = yaml.safe_load(text)
    assert citation["version"] == fairdedup.__version__
    assert [reference["identifiers"][0]["value"] for reference in citation["references"]] == [
        "arXiv:2303.09540",
        "arXiv:2404.16123",
    ]


def test_the_licence_is_the_unmodified_apache_2_text() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2


def test_dependencies_are_names_with_lower_bounds_and_constraints_are_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in ("dev", "docs", "benchmarks") for line in project["optional-dependencies"][extra]),
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and re.fullmatch(r"[\w.]+", pin) for name, pin in pins.items())
    for line in wanted:
        found = re.fullmatch(r"([A-Za-z0-9_-]+)>=[\d.]+(; .+)?", line)
        assert found is not None, line
        if "!= 'Linux'" not in line:
            assert found[1].lower().replace("_", "-") in pins, line


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    # A letter in brackets here and there, so that this file does not find itself.
    pattern = re.compile(
        r"pyp[i]\.(org|nvidia)|pythonhoste[d]\.org|download\.pytorc[h]\.org|anacond[a]\.org"
        r"|--(extra-)?index[-]url|--find[-]links"
        r"|(?<![\w.~/-])/(root|work|home|opt|Users)/\w"
    )
    found = []
    for name in filter(None, listed.split("\0")):
        file = ROOT / name
        if file.is_file():  # it may be removed and not yet committed
            text = file.read_bytes().decode("utf-8", "ignore")
            found += [f"{name}: {match[0]}" for match in pattern.finditer(text)]
    assert not found
