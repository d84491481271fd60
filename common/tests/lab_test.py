"""One lab as CI tries it: python3 common/tests/lab_test.py 01.1

The starter compiles, fails, and says the phrase that the lab promises; the chapter's own file in its
place passes.
"""

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "common" / "lab"))
import judge  # noqa: E402
import starter  # noqa: E402


def said(verdict):
    return "\n".join(f"{check['name']}: {check['message']}" for check in verdict["checks"])


def main(lab_id):
    lab = starter.find_lab(lab_id)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / lab.file
        starter.write_starter(lab, folder)
        verdict = judge.judge(lab_id, folder)
        print(f"--- the starter of {lab_id}: {verdict['seconds']:.1f} s\n{said(verdict)}")
        if verdict["passed"]:
            wrong.append("the starter passes")
        if any(check["name"] == "compiles" for check in verdict["checks"]):
            wrong.append("the starter does not compile")
        if lab.facts.get("says", "") not in said(verdict) or not lab.facts.get("says"):
            wrong.append(f"the starter's check does not say '{lab.facts.get('says')}'")
        file.write_text(starter.chapter_file(lab), encoding="utf-8")
        verdict = judge.judge(lab_id, folder)
        print(f"--- the chapter's {lab.file}: {verdict['seconds']:.1f} s\n{said(verdict)}")
        if not verdict["passed"]:
            wrong.append(f"the chapter's {lab.file} does not pass")
    for line in wrong:
        print(f"{lab_id}: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
