"""What the documentation site needs beside its pages; MkDocs calls the functions that begin with `on_`.

Pages under docs/ link to files elsewhere in the repository, as readers of a code host expect. Here these files become
part of the site, and links lead to them. One page lists every option of every command, from the command line itself.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

import click

from fairdedup.cli import cli
from fairdedup.cli.help_format import HEADINGS

ROOT = Path(__file__).parent.parent
PAGES = {  # files of the repository that are pages of the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "SECURITY.md": "security.md",
}
COMMANDS = "<!-- every command -->"  # where the page of commands has its list
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")


def find_source(page: str) -> str:
    """Return the path of a page of the site in the repository."""
    for source, uri in PAGES.items():
        if page == uri and source != "README.md":
            return source
    return f"docs/{page}"


def find_target(page: str, link: str) -> str | None:
    """Return the file of the repository that a relative link of a page leads to; None for any other link."""
    if re.match(r"[a-z]+:", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(find_source(page)), link))


def find_uri(target: str) -> str:
    """Return where a file of the repository is on the site."""
    if target in PAGES:
        return PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}"


def redirect_links(text: str, page: str) -> str:
    """Return a page whose links into the repository lead to where these files are on the site.

    Parameters
    ----------
    text : str
        Markdown of the page.
    page : str
        Its path on the site, as "howto/photos.md".
    """

    def redirect(found: re.Match[str]) -> str:
        target = find_target(page, found[2])
        if target is None:
            return found[0]
        uri = find_uri(target)
        anchor = "" if target == "README.md" else found[3] or ""  # the home page has other headings
        return f"{found[1]}{posixpath.relpath(uri, posixpath.dirname(page) or '.')}{anchor}{found[4]}"

    return LINK.sub(redirect, text)


def list_linked_files(page: str, text: str) -> set[str]:
    """Return the files outside of docs/ that a page links to and that are no pages themselves."""
    targets = {find_target(page, found[1]) for found in LINK.findall(text)} - {None}
    return {t for t in targets if t and not t.startswith("docs/") and t not in PAGES and (ROOT / t).is_file()}


def describe_command(name: str, command: click.Command) -> str:
    """Return the section of a command: what it does, its arguments, its options under their headings, examples."""
    context = click.Context(command, info_name=f"fairdedup {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"## {name}", "", inspect.cleandoc(command.help or ""), "", f"    fairdedup {name} {usage}", ""]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    for heading in HEADINGS:
        records = [
            option.get_help_record(context) for option in options if getattr(option, "heading", HEADINGS[0]) == heading
        ]
        cells = [(flag, re.sub(r"([|<>*_])", r"\\\1", text)) for flag, text in filter(None, records)]
        if cells:
            lines += [f"| {heading} | |", "|---|---|", *(f"| `{flag}` | {text} |" for flag, text in cells), ""]
    examples = getattr(command, "examples", ())
    return "\n".join([*lines, "```sh", *examples, "```", ""])


def describe_commands() -> str:
    """Return the sections of all commands, in the order of `fairdedup --help`."""
    return "\n".join(describe_command(name, command) for name, command in sorted(cli.commands.items()))


def make_anchor(title: str, separator: str) -> str:
    """Return the anchor that code hosts make for a heading, so that links work there and on the site."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def on_config(config: Any) -> Any:
    """Set how anchors are made, which a plain YAML file cannot say. Add pages that the menu lacks."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = make_anchor
    listed = str(config.nav)
    docs = Path(config.docs_dir)
    pages = sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    more = [page for page in pages if f"'{page}'" not in listed]
    if more:
        config.nav.append({"More": more})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and the files that lie outside of docs/."""
    from mkdocs.structure.files import File

    texts = {}
    for source, uri in PAGES.items():
        if source != "README.md":
            texts[uri] = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for file in files.documentation_pages():
        if file.src_uri not in texts:
            texts[file.src_uri] = Path(file.abs_src_path).read_text(encoding="utf-8")
    linked: set[str] = set()
    for page, text in texts.items():
        linked |= list_linked_files(page, text)
    for target in sorted(linked):
        files.append(File.generated(config, f"source/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Redirect the links of a page, and list the commands where their page says so."""
    text = redirect_links(markdown, page.file.src_uri)
    return text.replace(COMMANDS, describe_commands())
