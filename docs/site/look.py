#!/usr/bin/env python3
"""Looks at a built site in a real browser, on a phone and on a desktop, in light and dark, with
scripts and without.

    python3 docs/site/look.py build/site [--shots build/site-shots] [--all]

No error in the console, no request that leaves this machine, nothing wider than the screen. The
pictures are for a person to look at. Needs playwright (PyPI) and a chromium; exit code 77 when one
of them is not there.
"""

import argparse
import functools
import http.server
import importlib.util
import pathlib
import re
import shutil
import sys
import threading

PHONE, DESKTOP = (390, 844), (1440, 900)
#         name                width    colours  scripts
VIEWS = [("desktop",          DESKTOP, "light", True),
         ("desktop-dark",     DESKTOP, "dark",  True),
         ("phone",            PHONE,   "light", True),
         ("phone-no-scripts", PHONE,   "dark",  False)]
# The widest thing that sticks out, and how far; what scrolls by itself may be as wide as it likes.
WIDER = """() => {
  const page = document.documentElement, over = page.scrollWidth - page.clientWidth;
  if (over <= 0) return null;
  const inside = e => { for (let p = e.parentElement; p; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== 'visible') return true; return false; };
  const all = [...document.querySelectorAll('body *')].filter(e => !inside(e));
  const worst = all.sort((a, b) => b.getBoundingClientRect().right - a.getBoundingClientRect().right)[0];
  return `${over} px, <${worst?.tagName.toLowerCase()} class="${worst?.className}"> ${worst?.textContent.slice(0, 40)}`;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(root):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def chosen_pages(root, every):
    """One page of each kind; `every`: all but the source files."""
    pages = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.html"))
    pages = [page for page in pages if page != "404.html"]
    if every:
        return [page for page in pages if not re.search(r"\.\w+\.html$", page)]
    kinds = [r"index\.html", r"0[1457]_.*/index\.html", r"05_.*/step\.html", r"09_.*/step\.html", r".*/lab/.*\.html",
             r"docs/emulator\.html", r"docs/glossary\.html", r".*\.cuh\.html"]
    firsts = []
    for kind in kinds:
        found = [page for page in pages if re.fullmatch(kind, page)]
        firsts += found if kind.startswith("0[") else found[:1]
    return firsts


def look(browser, address, pages, view, shots):
    name, (width, height), colours, scripts = view
    faults = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=colours,
                                  java_script_enabled=scripts, reduced_motion="reduce")
    context.route(lambda url: not url.startswith((address, "data:", "blob:")),
                  lambda route: (faults.append(f"asks for {route.request.url}"), route.abort()))
    for page_name in pages:
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning")
                and faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("response", lambda answer: answer.status >= 400 and faults.append(f"{answer.status}: {answer.url}"))
        before = len(faults)
        page.goto(address + page_name, wait_until="load")
        if scripts:
            page.wait_for_timeout(150)
            wider = page.evaluate(WIDER)
            if wider:
                faults.append(f"wider than the screen: {wider}")
        if page.locator("article").count() != 1 or len(page.locator("article").inner_text()) < 100:
            faults.append("there is nothing to read")
        if shots:
            page.screenshot(path=shots / f"{page_name.replace('/', '-').removesuffix('.html')}.{name}.png")
        faults[before:] = [f"{page_name} ({name}): {fault}" for fault in faults[before:]]
        page.close()
    context.close()
    return faults


def search_works(browser, address):
    """A reader types a word and gets pages."""
    page = browser.new_page(viewport={"width": DESKTOP[0], "height": DESKTOP[1]})
    page.goto(address + "index.html")
    page.fill("input[name=query]", "wavefront")
    page.wait_for_selector(".md-search-result__item a", timeout=10000)
    found = page.locator(".md-search-result__item").count()
    page.close()
    return found > 1


def chromium():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browser_at_hand():
    """(is there one, why not)"""
    if importlib.util.find_spec("playwright") is None:
        return False, "there is no playwright in this Python ('pip install playwright')"
    if chromium() is None:
        return False, "there is no chromium on this machine ('apt-get install chromium')"
    return True, ""


def look_at(site, pages, views, shots=None, search=False):
    """What a browser has to complain of."""
    from playwright.sync_api import sync_playwright
    address, faults = serve(site), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for view in views:
            faults += look(browser, address, pages, view, shots)
        if search and not search_works(browser, address):
            faults.append("the search finds nothing")
        browser.close()
    return faults


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path, help="a folder for pictures of the pages")
    parser.add_argument("--all", action="store_true", help="every page, not one of each kind")
    options = parser.parse_args(arguments)
    there, why = browser_at_hand()
    if not options.site.exists():
        there, why = False, f"{options.site} was not built"
    if not there:
        print(f"SKIP: {why}.")
        return 77
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    pages = chosen_pages(options.site, options.all)
    faults = look_at(options.site, pages, VIEWS, options.shots, search=True)
    print("\n".join(faults) if faults else f"{len(pages)} pages in {len(VIEWS)} views: nothing to complain of")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
