#!/usr/bin/env python3
"""Reads a built site as a browser would: does every link and anchor lead somewhere, does every
picture say in words what it shows, and is nothing loaded from another host?

    python3 docs/site/check.py build/site

One line for each fault; the exit code is 1 when there is any.
"""

import html.parser
import pathlib
import posixpath
import re
import sys
import urllib.parse

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
LOADS = {"img": "src", "script": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src",
         "embed": "src", "object": "data", "image": "href", "use": "href"}
LINKS_THAT_LOAD = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
IN_CSS = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")
# What the theme's script can fetch, and only when a page asks for it, which is looked for here.
ASKS = {"class": re.compile(r"\bmermaid\b"), "data-md-component": re.compile(r"\bsource\b(?!-)")}


class Page(html.parser.HTMLParser):
    """What a page offers and wants."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads, self.faults, self.open, self.in_style = set(), [], [], [], [], False
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        if tag not in VOID:
            self.open.append(tag)
        for name in ("id", "name") if tag == "a" else ("id",):
            if attributes.get(name):
                if name == "id" and attributes["id"] in self.anchors:
                    self.faults.append(f"id {attributes['id']} stands twice")
                self.anchors.add(attributes[name])
        if tag == "a" and attributes.get("href") is not None:
            self.links.append(attributes["href"])
        if tag in LOADS and attributes.get(LOADS[tag]):
            self.loads.append(attributes[LOADS[tag]])
        if tag == "link" and LINKS_THAT_LOAD & set((attributes.get("rel") or "").split()):
            self.loads.append(attributes.get("href") or "")
        if attributes.get("srcset"):
            self.loads += [part.split()[0] for part in attributes["srcset"].split(",")]
        if tag == "img" and not attributes.get("alt"):
            self.faults.append(f"the picture {attributes.get('src')} has no words beside it (alt)")
        for name, pattern in ASKS.items():
            if pattern.search(attributes.get(name) or ""):
                self.faults.append(f"{name}=\"{attributes[name]}\" makes the theme fetch from another host")
        self.loads += css_loads(attributes.get("style") or "")
        self.in_style = tag == "style"

    def handle_startendtag(self, tag, pairs):
        self.handle_starttag(tag, pairs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        self.in_style = False
        if tag in self.open:
            while (last := self.open.pop()) != tag:
                if last not in ("p", "li", "dt", "dd", "td", "th", "tr", "tbody", "thead"):
                    self.faults.append(f"<{last}> is not closed before </{tag}>")
        elif tag not in VOID and tag != "p":
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if self.in_style:
            self.loads += css_loads(data)


def css_loads(text):
    return [first or second for first, second in IN_CSS.findall(text)]


def is_elsewhere(address):
    return bool(re.match(r"([a-z][a-z0-9+.-]*:)?//", address, re.IGNORECASE))


def resolved(name, address):
    """(file, anchor) that an address on page `name` means, from the site's root."""
    path, _, anchor = address.partition("#")
    path = urllib.parse.unquote(path.split("?")[0])
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    return target, urllib.parse.unquote(anchor)


def check(root):
    faults, pages = [], {}
    for path in sorted(root.rglob("*.html")):
        pages[path.relative_to(root).as_posix()] = Page(path.read_text(encoding="utf-8"))
    if not pages:
        return [f"{root} holds no page"]
    loads = [(name, address) for name, page in pages.items() for address in page.loads]
    for path in sorted(root.rglob("*.css")):
        loads += [(path.relative_to(root).as_posix(), address) for address in css_loads(path.read_text(encoding="utf-8"))]

    def leads(name, address, what):
        target, anchor = resolved(name, address)
        if (root / target).is_dir():
            target = posixpath.normpath(posixpath.join(target, "index.html"))
        if name == "404.html":  # its addresses begin at the server's root
            target = target.lstrip("/")
        if target.startswith("..") or not (root / target).is_file():
            faults.append(f"{name}: {what} {address} leads nowhere")
        elif anchor and target in pages and anchor not in pages[target].anchors and not anchor.startswith("__"):
            faults.append(f"{name}: {what} {address}: there is no such anchor")
        elif anchor.startswith("__codelineno") and anchor not in pages[target].anchors:
            faults.append(f"{name}: {what} {address}: there is no such line")

    for name, page in pages.items():
        faults += [f"{name}: {fault}" for fault in page.faults]
        for address in page.links:
            if not re.match(r"(https?|mailto):", address):
                leads(name, address, "the link")
    for name, address in loads:
        if is_elsewhere(address):
            faults.append(f"{name}: loads {address} from another host")
        elif not address.startswith("data:"):
            leads(name, address, "what it loads,")
    return list(dict.fromkeys(faults))


def main(arguments):
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(arguments[0])
    if not root.exists():
        print(f"SKIP: {root} was not built.")
        return 77
    faults = check(root)
    print("\n".join(faults) if faults else f"{sum(1 for _ in root.rglob('*.html'))} pages, every link leads somewhere")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
