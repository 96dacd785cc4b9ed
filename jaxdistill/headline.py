"""What a recipe was for: what was distilled from what into what, and how both compare.

What :func:`answer` gives is plain data, which stands at the top of a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxdistill._hub import shown
from jaxdistill.config import frozen_stages, target_stages
from jaxdistill.models import pretrained
from jaxdistill.recipe import Plan, Planned
from jaxdistill.recipe.student import CostsOf
from jaxdistill.training.loop import Outcome
from jaxdistill.training.meaning import meaning, plain_words

# Metrics that are compared, beside the one that a claim is about or that comes first.
METRICS = 3
_STEPS = re.compile(r"(.+?)_(\d+)")


def answer(plan: Plan, outcomes: Mapping[str, Outcome], measured: CostsOf) -> dict[str, Any]:
    """What stands at the top of a report, see :mod:`jaxdistill.training.report`.

    Args:
        plan: the recipe.
        outcomes: what its stages left.
        measured: what the net of a stage costs, see :func:`jaxdistill.recipe.costs_of`.
    """
    student = student_of(plan)
    teachers = teachers_of(plan, student)
    if student.kind == "data_set":
        rows = _data_sets(_data_name(plan, student), student, outcomes[student.name])
    else:
        rows = _nets(plan, student, teachers, outcomes, measured)
    names = _metrics(plan, student, rows)
    for row in rows:
        row["values"] = {name: row["values"][name] for name in names if name in row["values"]}
    return {
        "from": _sources(plan, student, teachers),
        "into": {"name": student.name, "what": described(student, outcomes[student.name].result)},
        "then": [{"name": p.name, "what": described(p)} for p in after(plan, student)],
        "how": _how(plan, student),
        "metrics": names,
        "rows": rows,
        "note": _note(rows, outcomes),
    }


def student_of(plan: Plan) -> Planned:
    """The stage that a recipe is about: the one that its claim measures if that one learns from
    another, else the first that does, else the last of those with the most steps."""
    learning = [p for p in plan.stages if _learns(plan, p)]
    # What takes no steps is there to be measured, such as a student before it has learnt.
    learning = [p for p in learning if p.settings["steps"]] or learning
    claimed = ((plan.config.get("claim") or {}).get("metric") or "").split("/")[0]
    own = [p for p in learning if p.name == claimed]
    if own or learning:
        return (own or learning)[0]
    most = max(p.settings["steps"] for p in plan.stages)
    return [p for p in plan.stages if p.settings["steps"] == most][-1]


def _learns(plan: Plan, planned: Planned) -> bool:
    if planned.settings["work"]:
        return False
    return planned.kind in ("data_set", "images") or bool(teachers_of(plan, planned))


def teachers_of(plan: Plan, planned: Planned) -> list[Planned]:
    """The earlier nets that a net learns from: those of its targets, and those that its algorithm
    reads if they are published or measured as it is. (A sampler also reads the classifier in whose
    features it is measured.)"""
    if planned.kind != "net":
        return []
    if wrote := _wrote(plan, planned):
        return [wrote]
    told = target_stages(planned.settings["targets"])
    read = frozen_stages(planned.settings)
    measured = {_family(name) for name in planned.metrics or ()}
    found = [plan.stage(name) for name in dict.fromkeys((*told, *read))]
    return [
        p
        for p in found
        if p.kind == "net"
        and (
            p.name in told
            or _is_published(p)
            or measured & {_family(name) for name in p.metrics or ()}
        )
    ]


def _wrote(plan: Plan, planned: Planned) -> Planned | None:
    """The stage whose teachers wrote what a net learns from."""
    stage = (planned.settings["data"] or {}).get("stage")
    wrote = plan.stage(stage) if stage else None
    return wrote if wrote is not None and "teachers" in (wrote.settings["work"] or {}) else None


def _family(metric: str) -> str:
    """A metric without its set and without the number of steps."""
    name = metric.rpartition("/")[2]
    found = _STEPS.fullmatch(name)
    return found[1] if found else name


def described(planned: Planned, result: Any = None) -> str:
    """What a stage makes, in words."""
    if planned.kind == "data_set" and result is not None:
        return f"{len(result.images)} images"
    if _is_published(planned):
        return shown(planned.settings["checkpoint"])
    if (planned.settings["student"] or {}).get("net") == "published":
        student = planned.settings["student"]
        changes = (student.get("changes") or {}).items()
        changed = [f"{plain_words(name)} {value}" for name, value in changes if value is not True]
        return ", ".join([shown(student["path"]), *changed])
    if planned.settings["student"]:
        return plain_words(str(planned.settings["student"]["net"]))
    named = planned.settings["work"] or planned.settings["distiller"] or {}
    if "teachers" in named:
        return ", ".join(f"{name} ({_who(each)})" for name, each in named["teachers"].items())
    return plain_words(named.get("name", planned.kind))


def _who(teacher: Mapping[str, Any]) -> str:
    """A teacher of records in words: its model, or its script, or its kind."""
    named = teacher.get("server", {}).get("model") or teacher.get("script", {}).get("script")
    return str(named or plain_words(teacher["teacher"]))


def _is_published(planned: Planned) -> bool:
    return pretrained.is_published(planned.settings["checkpoint"])


def learns_from(plan: Plan, planned: Planned) -> str:
    """What a stage learns from, in words."""
    teachers = [plain_words(p.name) for p in teachers_of(plan, planned)]
    if planned.settings["work"]:
        teachers = [plain_words(name) for name in planned.needs]
    data = (planned.settings["data"] or plan.config.get("data") or {}).get("name")
    labels = [] if planned.settings["work"] else [plain_words(data)] if data else []
    return ", ".join([*teachers, *labels])


def after(plan: Plan, student: Planned) -> list[Planned]:
    """The later nets that start from the student's."""
    found = []
    for planned in plan.stages:
        start = (planned.settings["initial"] or {}).get("stage")
        if planned.kind == "net" and start in (student.name, *(p.name for p in found)):
            found.append(planned)
    return found


def before(plan: Plan, student: Planned) -> list[Planned]:
    """The stage that measures the student as it begins, where there is one."""
    start = (student.settings["initial"] or {}).get("stage")
    return [
        p for p in plan.stages if p.name == start and _learns(plan, p) and not p.settings["steps"]
    ]


def _sources(plan: Plan, student: Planned, teachers: Sequence[Planned]) -> list[dict[str, str]]:
    if teachers:
        return [{"name": p.name, "what": described(p)} for p in teachers]
    if student.kind == "data_set":
        count = len(student.data["train"]) if "train" in student.data else 0
        return [{"name": _data_name(plan, student), "what": f"{count:,} records"}]
    if _repeats(student):
        return [{"name": "its own first fit", "what": ""}]
    told = (student.settings["distiller"] or {}).get("teacher")
    density = told.get("density") if isinstance(told, Mapping) else None
    return [{"name": "exact density", "what": plain_words(density["name"])}] if density else []


def _repeats(planned: Planned) -> bool:
    """Whether a stage is a fit that learns from itself."""
    return (planned.settings["distiller"] or {}).get("name") == "self_distilled_fit"


def _data_name(plan: Plan, planned: Planned) -> str:
    data = planned.settings["data"] or plan.config.get("data") or {}
    return str(data.get("name") or data.get("stage") or "data")


def _how(plan: Plan, student: Planned) -> str:
    steps = student.settings["steps"]
    parts = [f"{steps:,} step{'s' if steps > 1 else ''}"] if steps else []
    if student.kind != "data_set" and student.data:
        parts.append(f"on {plain_words(_data_name(plan, student))}")
    if terms := student.settings["objective"]:
        parts.append("by " + ", ".join(map(plain_words, terms)))
    elif student.settings["distiller"]:
        parts.append(f"by {plain_words(student.settings['distiller']['name'])}")
    return ", ".join(parts)


def _nets(
    plan: Plan,
    student: Planned,
    teachers: Sequence[Planned],
    outcomes: Mapping[str, Outcome],
    costs: CostsOf,
) -> list[dict[str, Any]]:
    """A row for every teacher, for the student, and for others that were measured alike; of
    samplers one for every number of steps."""
    began = before(plan, student)
    roles = {p.name: "from the student" for p in after(plan, student)}
    roles |= {p.name: "student at first" for p in began}
    roles |= {p.name: "teacher" for p in teachers} | {student.name: "student"}
    alike = set(_own_values(outcomes[student.name]))
    rows = []
    for planned in plan.stages:
        if planned.kind == "records":
            if planned in teachers:
                rows.append(_records(planned, outcomes[planned.name]))
            continue
        values = _own_values(outcomes[planned.name])
        sole = [p.name for p in teachers] == [planned.name]
        for learner in (*began, student):
            values |= _of_teacher(planned.name, learner, outcomes, sole)
        role = roles.get(planned.name, "")
        if not role and (planned.kind != "net" or not alike & values.keys()):
            continue
        found = costs(planned.name)
        own = {} if found is None else found._asdict()
        own.pop("device", None)
        row = {"name": planned.name, "what": described(planned), "role": role}
        if planned is student and _repeats(student):
            lines = outcomes[student.name].metrics
            first = next(line for line in lines if line["kind"] == "evaluation")
            rows.append({**row, **own, "name": "first fit", "role": "teacher", "values": first})
        rows += [{**row, **steps, "values": each, **own} for steps, each in _by_steps(values)]
    return _in_order(rows)


def _records(planned: Planned, outcome: Outcome) -> dict[str, Any]:
    """What teachers wrote, beside the student that learnt it."""
    row = {"name": planned.name, "what": described(planned), "role": "teacher", "values": {}}
    return {**row, "records": int(outcome.values["records/kept"])}


def _in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Teachers first, then others, then the student as it began, as it is, and what became of
    it."""
    order = {"teacher": 0, "": 1, "student at first": 2, "student": 3, "from the student": 4}
    return sorted(rows, key=lambda row: (order[row["role"]], -row.get("at", 0)))


def _own_values(outcome: Outcome) -> dict[str, float]:
    """What was measured of a result itself, less the means over its training."""
    return {
        name: value
        for name, value in outcome.values.items()
        if not name.startswith("train/")
        and ":" not in name
        and not name.rpartition("/")[2].startswith("teacher_")
        and "_teacher_" not in name
    }


def _of_teacher(
    name: str, student: Planned, outcomes: Mapping[str, Outcome], sole: bool
) -> dict[str, float]:
    """What a stage of the student has measured of a teacher, by its name or, of the sole one,
    without."""
    found = {}
    for metric, value in outcomes[student.name].values.items():
        if metric.startswith(f"{name}:"):
            found[metric.removeprefix(f"{name}:")] = value
        part, _, own = metric.rpartition("/")
        if sole and ":" not in metric:
            if own.startswith("teacher_"):
                found[f"{part}/{own.removeprefix('teacher_')}"] = value
            elif "_teacher_" in own:
                found[f"{part}/{own.replace('_teacher_', '_')}"] = value
    return found


def _by_steps(values: Mapping[str, float]) -> Iterable[tuple[dict[str, int], dict[str, float]]]:
    """Values of samplers apart by the number of steps; of all others as they are."""
    found: dict[int, dict[str, float]] = {}
    plain = {}
    for name, value in values.items():
        if match := _STEPS.fullmatch(name):
            found.setdefault(int(match[2]), {})[match[1]] = value
        else:
            plain[name] = value
    if not found:
        return [({}, plain)]
    return [({"at": steps}, own) for steps, own in sorted(found.items(), reverse=True)]


def _data_sets(name: str, student: Planned, outcome: Outcome) -> list[dict[str, Any]]:
    """The real records and the small set."""
    rows = []
    if "train" in student.data:
        source = student.data["train"]
        record = source.gather(np.arange(1))
        size = sum(np.asarray(record[key]).nbytes for key in ("image", "label") if key in record)
        rows.append(
            {
                "name": name,
                "role": "real data",
                "records": len(source),
                "bytes": size * len(source),
                "values": {},
            }
        )
    made = outcome.result
    rows.append(
        {
            "name": student.name,
            "role": "small set",
            "records": len(made.images),
            "bytes": int(np.asarray(made.images).nbytes + np.asarray(made.targets).nbytes),
            "values": _own_values(outcome),
        }
    )
    return rows


def _metrics(plan: Plan, student: Planned, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that are compared: first the claim's, then those that others have too."""
    own = [name for row in rows if row["name"] == student.name for name in row["values"]]
    own = list(dict.fromkeys(own))
    claimed = ((plan.config.get("claim") or {}).get("metric") or "").partition("/")[2]
    match = _STEPS.fullmatch(claimed)
    first = [name for name in (claimed, match[1] if match else "") if name in own]
    others = [row["values"] for row in rows if row["name"] != student.name]
    first = [_where_most_have(name, own, others) for name in first]
    rest = [name for name in own if meaning(name).better] or own
    # What is best on the way was chosen by the very records that it is measured on.
    rest.sort(
        key=lambda name: (
            -sum(name in values for values in others),
            name.endswith("_best"),
            not name.startswith("test/"),
        )
    )
    names = _once([*first, *rest])[:METRICS]
    for row in rows:
        theirs = [name for name in row["values"] if meaning(name).better and name not in own]
        if row["role"] == "from the student" and theirs:
            theirs.sort(key=lambda n: not n.startswith("test/"))
            names = [*names[: METRICS - 1], theirs[0]]
    return names


def _where_most_have(name: str, own: Sequence[str], others: Sequence[Mapping[str, float]]) -> str:
    """The metric on the set on which most others have it too: a teacher may be measured on the
    validation set alone, and a student's values on another are not to be compared with that."""
    same = [one for one in own if one.rpartition("/")[2] == name.rpartition("/")[2]]
    return max(same, key=lambda one: (sum(one in values for values in others), one == name))


def _once(names: Iterable[str]) -> list[str]:
    """Each metric on the first of its sets: on another it says little more."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.rpartition("/")[2], name)
    return list(found.values())


def _note(rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome]) -> str:
    if not any("seconds" in row for row in rows):
        return ""
    passes = "one forward pass of one example"
    steps = ", of which a sample takes one or two a step" if any("at" in r for r in rows) else ""
    return f"Operations and latency are those of {passes}{steps}, on this machine's first device."
