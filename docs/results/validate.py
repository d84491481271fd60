#!/usr/bin/env python3
"""Checks results files against schema.json.

    python3 docs/results/validate.py [FILE.json ...]

Without files: every results file in this folder. The part of JSON Schema that schema.json uses is
small and is checked here, so that a machine with nothing but Python can do it; where the
jsonschema package is installed it checks too. Exit code 1 and one line for each fault.
"""

import json
import pathlib
import sys

try:
    from jsonschema import Draft202012Validator
except ImportError:
    Draft202012Validator = None

HERE = pathlib.Path(__file__).resolve().parent

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def faults(value, schema, root, where="file"):
    """Yields a sentence for each way in which `value` breaks `schema`."""
    is_number = TYPES["number"](value)
    for keyword, rule in schema.items():
        if keyword in ANNOTATIONS:
            continue
        if keyword == "$ref":
            target = root
            for part in rule.removeprefix("#/").split("/"):
                target = target[part]
            yield from faults(value, target, root, where)
        elif keyword == "type":
            allowed = rule if isinstance(rule, list) else [rule]
            if not any(TYPES[name](value) for name in allowed):
                yield f"{where} is {json.dumps(value)[:40]}, not of type {' or '.join(allowed)}"
        elif keyword == "const":
            # JSON knows true and 1 apart; Python's == does not.
            if value != rule or isinstance(value, bool) != isinstance(rule, bool):
                yield f"{where} is {json.dumps(value)[:40]}, not {json.dumps(rule)}"
        elif keyword == "enum":
            if value not in rule:
                yield f"{where} is {json.dumps(value)[:40]}, not one of {', '.join(rule)}"
        elif keyword == "minLength":
            if isinstance(value, str) and len(value) < rule:
                yield f"{where} is shorter than {rule}"
        elif keyword == "minimum":
            if is_number and value < rule:
                yield f"{where} is {value}, below {rule}"
        elif keyword == "exclusiveMinimum":
            if is_number and value <= rule:
                yield f"{where} is {value}, not above {rule}"
        elif keyword == "required":
            if isinstance(value, dict):
                for name in rule:
                    if name not in value:
                        yield f"{where} lacks {name}"
        elif keyword == "properties":
            if isinstance(value, dict):
                for name, part in rule.items():
                    if name in value:
                        yield from faults(value[name], part, root, f"{where}.{name}")
        elif keyword == "additionalProperties":
            if isinstance(value, dict):
                for name in value.keys() - schema["properties"].keys():
                    yield f"{where} has {name}, which the schema does not know"
        elif keyword == "items":
            if isinstance(value, list):
                for i, item in enumerate(value):
                    yield from faults(item, rule, root, f"{where}[{i}]")
        elif keyword == "anyOf":
            tries = [list(faults(value, part, root, where)) for part in rule]
            if all(tries):
                yield ", or ".join(found[0] for found in tries)
        else:
            # A rule that is not understood must not pass for one that is kept.
            raise ValueError(f"schema.json uses {keyword}, which validate.py does not know")


def file_faults(path, schema):
    try:
        results = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError) as failure:
        return [str(failure)]
    found = list(faults(results, schema, schema))
    if Draft202012Validator:
        for error in Draft202012Validator(schema).iter_errors(results):
            found.append(f"jsonschema: {error.json_path}: {error.message[:200]}")
    if not found:
        # What a schema cannot say: rows point at the problem they name.
        for i, row in enumerate(results["rows"]):
            problems = results["problems"]
            if row["problem"] >= len(problems):
                found.append(f"rows[{i}].problem is past the end of problems")
            else:
                named = problems[row["problem"]]
                for name in ("config", "dtype", "causal"):
                    if row[name] != named[name]:
                        found.append(f"rows[{i}].{name} is not that of its problem")
    return found


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def main(arguments):
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    files = [pathlib.Path(name) for name in arguments] or sorted(
        path for path in HERE.rglob("*.json") if path.name != "schema.json")
    if Draft202012Validator:
        checkers = "validate.py and the jsonschema package"
    else:
        checkers = "validate.py alone (the jsonschema package is not installed)"
    wrong = False
    for path in files:
        for fault in file_faults(path, schema):
            wrong = True
            print(f"{path}: {fault}")
    print(f"{len(files)} results file(s) checked by {checkers}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
