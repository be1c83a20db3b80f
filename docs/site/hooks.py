"""What the pages need beside mkdocs: links to files outside of docs/, the notebook, formulas.

A page links to the source as it does on GitHub, `../yolov1_jax/yolo/loss.py`. Here such a file
becomes a page of the site; a link to a file that does not exist fails the strict build, as others.
"""

import json
import pathlib
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
LANGUAGES = {".py": "python", ".sh": "bash", ".cfg": "ini", ".toml": "toml"}
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files, config):
    """Adds README as the first page, notebooks, and every file that a page links to."""
    readme = LINK.sub(_from_docs, (ROOT / "README.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "index.md", content=readme))
    for file in [one for one in files if one.src_uri.endswith(".ipynb")]:
        cells = json.loads(file.content_string)["cells"]
        text = "\n\n".join(_cell(one["cell_type"], "".join(one["source"])) for one in cells)
        files.remove(file)
        files.append(File.generated(config, file.src_uri[:-5] + "md", content=text))
    for page in [one for one in files if one.src_uri.endswith(".md")]:
        for _, target in LINK.findall(page.content_string):
            name = _outside(target)
            if name and f"source/{name}.md" not in files.src_uris and (ROOT / name).exists():
                text = _source(ROOT / name, name)
                file = File.generated(config, f"source/{name}.md", content=text)
                file.inclusion = file.inclusion.NOT_IN_NAV
                files.append(file)
    return files


def on_page_markdown(markdown, page, **_):
    def change(match):
        name = _outside(match[2])
        target = f"source/{name}.md" if name else match[2].replace(".ipynb", ".md")
        return match[1] + target

    return markdown if page.file.src_uri.startswith("source/") else LINK.sub(change, markdown)


def on_page_content(html, **_):
    """Formulas become MathML, which browsers draw without a script."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', _formula, html, flags=re.S
    )


def _formula(match):
    latex = match[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return convert(latex, display="inline" if match[2] == "(" else "block")


def _outside(target):
    """The path of a link's target from the root of the repository, if it is not below docs/."""
    return target[3:].rstrip("/") if target.startswith("../") else None


def _from_docs(match):
    inside = match[2].startswith("docs/")
    return match[1] + (match[2][5:] if inside else f"../{match[2]}")


def _cell(kind, text):
    return text if kind == "markdown" else f"```python\n{text}\n```"


def _source(path, name):
    if path.is_dir():
        files = sorted(one.name for one in path.iterdir() if one.suffix in LANGUAGES)
        text = "\n".join(f"- `{one}`" for one in files)
    else:
        code = path.read_text(encoding="utf-8")
        text = f'````{{ .{LANGUAGES.get(path.suffix, "text")} linenums="1" }}\n{code}````'
    return f"---\nhide: [navigation, toc]\nsearch: {{exclude: true}}\n---\n# {name}\n\n{text}\n"
