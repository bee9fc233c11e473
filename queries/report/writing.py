"""Reports as files: one HTML page with all content, or Markdown with a folder of pictures.

All texts are escaped here for each format, because titles, notes and names come from other people.
A page contains no addresses, and its content security policy forbids a browser to fetch any.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queries.report.building import build_page
from registry.errors import BadInput, MissingExtra

if TYPE_CHECKING:
    import jinja2

    from queries.report.gathering import Report
    from queries.report.page import Page

__all__ = ["SUFFIXES", "check_report_file", "pictures_folder", "write_report"]

SUFFIXES = (".html", ".md")
TEMPLATES = Path(__file__).parent / "templates"

_MARKUP = re.compile(r"([\\`*_\[\]<|~#&$])")
# Characters that no page may contain, or that change the direction of the following text.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def check_report_file(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Raises:
        BadInput: Its suffix is not supported, or its folder does not exist.
        MissingExtra: The packages that draw and write reports are not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"cannot report to {str(path)!r}; name a file that ends in .html or .md")
    if not path.parent.is_dir():
        raise BadInput(f"cannot report to {str(path)!r}: there is no folder {str(path.parent)!r}")
    for needed in ("jinja2", "matplotlib", "seaborn"):
        try:
            import_module(needed)
        except ImportError as error:
            raise MissingExtra("a report", "plots") from error


def write_report(report: Report, path: Path) -> tuple[Path, ...]:
    """Write a report in the format of the suffix of ``path``; equal reports give equal files.

    HTML is one file. Markdown has its pictures in a folder next to it, :func:`pictures_folder`.

    Args:
        report: The report.
        path: Ends in ``.html`` or ``.md``; an existing file is replaced.

    Returns:
        All files written, ``path`` first.

    Raises:
        BadInput: The suffix is not supported, or the folder does not exist.
        MissingExtra: The packages that draw and write reports are not installed.
    """
    check_report_file(path)
    page = build_page(report)
    if path.suffix.lower() == ".html":
        path.write_bytes(as_html(page).encode())
        return (path,)
    folder = pictures_folder(path)
    folder.mkdir(exist_ok=True)
    written = [path]
    for picture in page.pictures:
        written.append(folder / f"{picture.name}.svg")
        written[-1].write_bytes(f"{picture.svg}\n".encode())
    path.write_bytes(as_markdown(page, folder.name).encode())
    return tuple(written)


def pictures_folder(path: Path) -> Path:
    """Folder of a Markdown report's pictures: ``report_files`` next to ``report.md``."""
    return path.with_name(f"{path.stem}_files")


def as_html(page: Page) -> str:
    """Write a page as one HTML document that contains its pictures and style."""
    from markupsafe import Markup

    environment = _environment(autoescape=True, finalize=_writable)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    template = environment.get_template("report.html.j2")
    return template.render(page=page, style=Markup(style), drawing=Markup) + "\n"


def as_markdown(page: Page, folder: str) -> str:
    """Write a page as Markdown in GitHub's dialect.

    Args:
        page: The page.
        folder: Name of the folder of its pictures, next to it.
    """
    from markupsafe import Markup

    environment = _environment(autoescape=False, finalize=_markdown)
    environment.filters["code"] = lambda text: Markup(_writable(text).replace("`", "'"))
    folder = re.sub(r"[^A-Za-z0-9._~/-]", lambda found: _percent(found[0]), folder)
    text = environment.get_template("report.md.j2").render(page=page, folder=Markup(folder))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, **options,
    )  # fmt: skip


def _writable(value: Any) -> Any:
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _UNWRITABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", value)


def _markdown(value: Any) -> Any:
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    one_line = re.sub(r"\s+", " ", value)
    return _MARKUP.sub(r"\\\1", _writable(one_line))


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
