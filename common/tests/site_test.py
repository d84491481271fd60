#!/usr/bin/env python3
"""Tests of docs/site: how Markdown is turned for mkdocs, and whether the checker of the built site
sees what it should."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "docs" / "site"))
import build_site  # noqa: E402
import check  # noqa: E402
import look  # noqa: E402
import steps  # noqa: E402


class Lists(unittest.TestCase):
    def same(self, text, expected):
        self.assertEqual(build_site.relist(text), expected)

    def test_a_list_may_follow_a_paragraph_at_once(self):
        self.same("text\n* one\n* two", "text\n\n* one\n* two")

    def test_lists_that_stand_alone_stay(self):
        self.same("text\n\n* one\n  more\n* two\n\nend", "text\n\n* one\n    more\n* two\n\nend")

    def test_what_belongs_to_an_item_stands_four_to_its_right(self):
        self.same("1. one\n\n   more\n\n   ```\n   code\n     deep\n   ```\n2. two\n\nend",
                  "1. one\n\n    more\n\n    ```\n    code\n      deep\n    ```\n2. two\n\nend")

    def test_lists_in_lists(self):
        self.same("* a\n  * b\n    more\n* c", "* a\n    * b\n        more\n* c")

    def test_a_number_at_the_beginning_of_a_line_is_no_item(self):
        self.same("* some\n  1500. So much", "* some\n    1500\\. So much")

    def test_code_stays_as_it_is(self):
        text = "```\ntext\n* one\n  two\n```"
        self.same(text, text)


class Links(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name in ("README.md", "01_a/README.md", "01_a/a.cuh", "docs/b.md", "docs/r/x.json"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("# Title\n")
        self.site = build_site.Site(self.root, self.root / "pages")

    def page(self, text, name="01_a/README.md"):
        (self.root / name).write_text(text)
        self.site.add_markdown(pathlib.PurePosixPath(name))
        return (self.root / "pages" / name).read_text()

    def test_pages_are_linked_as_they_are(self):
        self.assertEqual(self.page("[b](../docs/b.md#there) [h](https://x.y/) [i](#in)"),
                         "[b](../docs/b.md#there) [h](https://x.y/) [i](#in)")

    def test_source_files_become_pages(self):
        self.assertEqual(self.page("[a](a.cuh#L3)"), "[a](a.cuh.md#__codelineno-0-3)")
        self.assertIn(".cuda", (self.root / "pages/01_a/a.cuh.md").read_text())

    def test_folders_become_their_readme_or_a_list(self):
        self.assertEqual(self.page("[a](01_a/) [r](docs/r)", "README.md"), "[a](01_a/README.md) [r](docs/r/index.md)")
        self.assertIn("x.json", (self.root / "pages/docs/r/index.md").read_text())

    def test_code_is_no_link(self):
        for text in ("`[](int r)`", "```\n[](int r)\n```"):
            self.assertEqual(self.page(text), text)

    def test_a_link_that_leads_nowhere_is_an_error(self):
        for target in ("none.md", "../../outside.md", "a.cu"):
            with self.assertRaises(build_site.SiteError, msg=target):
                self.page(f"[x]({target})")

    def test_weave_is_left_out(self):
        self.assertEqual(self.page("a\n\n<!-- weave: table\n x -->\n\nb"), "a\n\n\nb")


class Labs(unittest.TestCase):
    def test_hints_are_folded(self):
        text = ('<!--\ntitle = "T"\nminutes = 20\nfile = "qk.cuh"\n-->\n## Do\n\nx\n\n## Hints\n\n### Hint 1\n\n'
                "one\n\n### Hint 2\n\ntwo\n")
        page = build_site.lab_page(pathlib.PurePosixPath("05_e/lab/2_name.md"), text)
        self.assertTrue(page.startswith("# Lab 05.2 · T\n"))
        self.assertEqual(page.count("<details"), 2)
        self.assertLess(page.index("one"), page.index("Hint 2"))


class Steps(unittest.TestCase):
    def step(self, offsets, line="01_a/a.cuh:2", **more):
        offsets = offsets + [None] * (32 - len(offsets))
        return {"what": "load", "space": "shared", "array": "A", "bytes": 4, "line": line, "times": 1,
                "first": [{"offsets": offsets, "passes": 1, **more}]}

    def phase(self, *steps_):
        return {"ended_by": "the barrier at 01_a/a.cuh:3", "steps": list(steps_), "moved": [], "block": {}}

    def test_a_line_that_was_unrolled_is_one_step(self):
        one, = steps.merged([self.step([0]), self.step([4])])
        self.assertEqual((one["times"], len(one["first"])), (2, 2))
        self.assertEqual(2, len(steps.merged([self.step([0]), self.step([0], line="01_a/a.cuh:4")])))

    def test_phases_that_are_the_same_are_shown_once(self):
        a, b = self.phase(self.step([0])), self.phase(self.step([0], line="01_a/a.cuh:9"))
        self.assertEqual([numbers for numbers, _ in steps.runs_of_phases([a, b, a, b, b])], [[1, 3], [2, 4, 5]])
        self.assertEqual(steps.listed([1, 2, 3, 7, 9, 10]), "1–3, 7, 9–10")

    def test_what_costs_too_much_is_marked(self):
        everyone = [4 * lane for lane in range(32)]
        self.assertEqual(steps.cost(self.step(everyone)), ("1 pass", False))
        self.assertEqual(steps.cost(self.step([128 * lane for lane in range(32)], passes=32)), ("32 passes", True))
        self.assertEqual(steps.cost(self.step([0] * 32)), ("1 pass", False))

    def test_the_stage_before_is_left_out(self):
        self.assertTrue(steps.is_of({"phases": [self.phase(self.step([0]))]}, "01_a"))
        self.assertFalse(steps.is_of({"phases": [self.phase(self.step([0]))]}, "02_b"))

    def test_the_picture_shows_who_goes_where(self):
        picture = steps.lanes_picture(self.step([4 * (31 - lane) for lane in range(32)]), lane=5)
        self.assertIn("32 lanes, 32 banks", picture)
        self.assertEqual(picture.count("<text"), 65)
        self.assertIn("1 bank\"", steps.lanes_picture(self.step([128, 256]), lane=0))

    def test_places_in_words(self):
        self.assertEqual(steps.element("Q", 2 * 256 + 12, {"Q": 4}, {"Q": 256}), "Q[2][3]")
        self.assertEqual(steps.element("workspace", 12, {}, {}), "byte 12")


class Checker(unittest.TestCase):
    """Each fault is planted in a site that has none."""

    def faults(self, body, **files):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "index.html").write_text(f"<html><body><h1 id=top>T</h1>{body}</body></html>")
            (root / "other.html").write_text("<p id=there>x</p>")
            (root / "x.png").write_text("")
            for name, text in files.items():
                (root / name.replace("_", ".")).write_text(text)
            return check.check(root)

    def test_a_site_without_fault(self):
        self.assertEqual([], self.faults('<a href="other.html#there">o</a> <a href="#top">t</a> <img src="x.png" alt="x">'
                                         '<a href="https://arxiv.org/">a</a>', a_css="p{background:url(x.png)}"))

    def test_planted_faults(self):
        for body, said in [('<a href="none.html">x</a>', "leads nowhere"),
                           ('<a href="../out.html">x</a>', "leads nowhere"),
                           ('<a href="other.html#gone">x</a>', "no such anchor"),
                           ('<a href="#gone">x</a>', "no such anchor"),
                           ('<img src="gone.png" alt="x">', "leads nowhere"),
                           ('<img src="x.png">', "no words beside it"),
                           ('<script src="https://cdn.x/y.js"></script>', "another host"),
                           ('<img alt=x src="//cdn.x/y.png">', "another host"),
                           ('<link rel="preconnect" href="https://f.x">', "another host"),
                           ("<style>@import 'https://f.x/a.css';</style>", "another host"),
                           ('<p style="background:url(http://f.x/a)"></p>', "another host"),
                           ('<pre class="mermaid">x</pre>', "another host"),
                           ('<p id="top">x</p>', "twice"),
                           ("<div><span></div>", "not closed")]:
            with self.subTest(body):
                found = self.faults(body)
                self.assertTrue(any(said in fault for fault in found), found)

    def test_a_style_sheet_that_loads_from_elsewhere(self):
        self.assertIn("another host", " ".join(self.faults("", a_css="p{background:url('https://f.x/a.png')}")))

    def test_no_page_at_all(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(1, len(check.check(pathlib.Path(folder))))


@unittest.skipUnless(look.browser_at_hand()[0], look.browser_at_hand()[1])
class Browser(unittest.TestCase):
    def test_planted_faults(self):
        text = "text " * 30
        for body, said in [("", None),
                           ('<img alt="x" src="https://example.org/x.png">', "asks for https://example.org"),
                           ("<script>fetch('//example.org/y')</script>", "asks for http://example.org"),
                           ("<script>console.error('broken')</script>", "console: broken"),
                           ("<script>nothing()</script>", "nothing is not defined"),
                           ('<img alt="x" src="gone.png">', "404"),
                           ('<div style="width:3000px">x</div>', "wider than the screen"),
                           ("<script>document.querySelector('article').remove()</script>", "nothing to read")]:
            with self.subTest(body), tempfile.TemporaryDirectory() as folder:
                page = f"<html><head><link rel=icon href='data:,'></head><body><article>{text}</article>{body}</body></html>"
                pathlib.Path(folder, "index.html").write_text(page)
                found = look.look_at(pathlib.Path(folder), ["index.html"], look.VIEWS[:1])
                if said:
                    self.assertTrue(any(said in fault for fault in found), found)
                else:
                    self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
