"""The Markdown of a GPU report, made from its JSON."""

HEADINGS = {
    "what": "",
    "variant": "",
    "how": "timed as",
    "median_us": "µs",
    "median_ms": "ms",
    "iqr": "IQR",
    "gb_per_s": "GB/s",
    "tflop_per_s": "TFLOP/s",
    "bound_us": "bound, µs",
    "bound_ms": "bound, ms",
    "share": "of the bound",
    "target": "target",
    "faster": "against plain torch",
    "images_per_s": "images/s",
    "relative_error": "rel. error",
    "s_per_run": "s",
    "s_for_100_images": "s for 100 images",
    "steps_times_one": "evaluations × one, s",
    "run_over_that": "run / that",
    "the_papers_s": "the paper's s",
    "peak_gib": "peak GiB",
    "sm_mhz": "SM, MHz",
    "watts": "W",
}
TEXT = ("why", "wrong")  # said in words behind the row


def markdown(report) -> str:
    """The report as one page.

    Args:
        report: what `gpu_report` writes as JSON.
    """
    about = report["machine"]
    lines = [
        f"# {about.get('device', report['device'])}, {report['date'][:10]}, commit {about.get('commit', 'none')}",
        "",
    ]
    if report["quick"]:
        lines += ["A trial on tiny shapes: its times mean nothing.", ""]
    lines += table([{"what": name, "value": value} for name, value in about.items()])
    lines += ["", "## Sections", ""]
    lines += table(
        [
            {"section": s["title"], "status": s["status"], "s": round(s["seconds"], 1), "remark": s["why"]}
            for s in report["sections"]
        ]
    )
    for section in report["sections"]:
        lines += chapter(section)
    return "\n".join(lines).rstrip() + "\n"


def chapter(section) -> list[str]:
    """The lines of one section; nothing for one without contents."""
    said = {} if section["name"] == "machine" else section["facts"]
    facts = {name.replace("_", " "): value for name, value in said.items() if not name.endswith("_per_s")}  # in rows
    if not (facts or section["rows"] or section.get("output")):
        return []
    lines = ["", f"## {section['title']}", ""]
    if section["status"] != "passed":
        lines += [f"**{section['status']}**" + f": {section['why']}" * bool(section["why"]), ""]
    if section.get("again"):
        lines += [f"Once more, with launches that are waited for: {section['again']}", ""]
    lines += [f"- {name}: {number(value)}" for name, value in facts.items()] + [""] * bool(facts)
    lines += table(section["rows"])
    if section.get("output"):
        kept = section["output"].replace("```", "'''").splitlines()[-30:]
        lines += ["", "<details><summary>end of its output</summary>", "", "```", *kept, "```", "", "</details>"]
    return lines


def table(rows) -> list[str]:
    """Rows of dicts as a Markdown table whose columns are all their keys, in the order in which they appear."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in TEXT))
    if any(row.get(key) for row in rows for key in TEXT):
        keys.append("remark")
    if not rows:
        return []
    lines = [
        "| " + " | ".join(HEADINGS.get(key, key.replace("_", " ")) for key in keys) + " |",
        "|---" * len(keys) + "|",
    ]
    for row in rows:
        said = "; ".join(("**wrong**: " if key == "wrong" else "") + str(row[key]) for key in TEXT if row.get(key))
        cells = {**row, "remark": said or row.get("remark", "")}
        lines.append("| " + " | ".join(cell(key, cells.get(key)) for key in keys) + " |")
    return lines


def cell(key, value) -> str:
    """One value."""
    if value is None:
        return ""
    if key in ("share", "target"):
        return f"{100 * value:.0f} %"
    if key == "faster":
        return f"{value:.2f}x"
    return number(value).replace("|", "\\|").replace("\n", " ")


def number(value) -> str:
    """A value with the digits that mean something."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
