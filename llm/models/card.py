"""The model card: what a checkpoint was trained on, against which adversary, and how it did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..run.escaping import markdown, markdown_code
from ..run.files import JsonObject
from ..run.kinds import has_reference, kind_of
from ..run.launch import said_of_processes
from .card_parts import base_name, header, use


def model_card(record: JsonObject, results: JsonObject | None = None) -> str:
    """Markdown for ``README.md`` beside the weights.

    Args:
        record: What ``run.json`` holds.
        results: Suite records by suite name, when the model was judged: of ``llm.judging.accuracy.summarise``, or of
            ``llm.policy.judging.summarise_policy``.
    """
    if (kind := kind_of(record["kind"])) is None:
        raise ValueError(f"a run of kind {record['kind']!r} has no card")
    prompts = kind.name == "policy"  # no pairs
    rows = _policy_rows(record) if prompts else _rows(record)
    lines = [
        *header(record, pipeline=kind.pipeline, tag=kind.tag), f"# {kind.result}", "", kind.text,
        *([] if prompts else [_objective(record)]), "",
        "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items()), "",
        *_seen(record),
        *((_policy_results if prompts else _results)(results) if results else ["Not evaluated.", ""]),
        *use(record, reward=kind.name == "reward"),
        "## Versions", "", _versions(record), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _rows(record: JsonObject) -> dict[str, str]:
    config, data = record["config"], record["data"]
    train = data["train"]
    known = data["truncation"]
    cut = {name: number for name, number in known.items() if name != "pairs" and not isinstance(number, dict)}
    cut |= {f"pairs left out, since {why}": number for why, number in known.get("left_out", {}).items()}
    cut |= {f"lost {what}": number for what, number in known.get("lost", {}).items()}
    return {
        "ambiguity set": _set(config),
        **_verdicts(record),
        "starting model": markdown(base_name(config["model"])),
        "training data": f"{_source(train)}, {_used(data, 'pairs')}",
        **_files(train),
        "held-out data": _held_out(data, config),
        "dropped pairs": _counts(train["dropped"]),
        "truncated": f"{_counts(cut)} at max_length {config['max_length']}",
        "steps": f"{record['steps']}, effective batch {record['effective_batch']}, learning rate "
        f"{record['learning_rate']:g}",
        "licence": f"{markdown(record.get('licence', 'unknown'))} (of the starting model; see to that of the data)",
        "seed": f"{record['seed']} (subset seed {config['subset_seed']})",
        "exported iterate": config["final"],
        **_special(config),
        **_changes(record),
        "training time": _time(record),
        **_processes(record),
    }


def _seen(record: JsonObject) -> list[str]:
    """What an audit found of the pairs as the model reads them, and what is of concern."""
    if (audit := record["data"].get("audit")) is None:
        return []
    count = {name: found["count"] for name, found in audit.items() if isinstance(found, dict) and "count" in found}
    said = (
        f"Of {count['pairs']:,} training pairs, {count['prompt_whole_both']:,} show the whole prompt before both "
        f"answers, {count['prompt_cut']:,} a part of it and {count['prompt_absent']:,} of these nothing but its frame; "
        f"{count['same_window']:,} show the same part before both answers. {count['answers_cut']:,} have an answer "
        f"that was cut, {count['token_identical']:,} two answers with the same tokens, which were left out. "
        f"{audit['unknown_token_share']:.2%} of the tokens are unknown ones; the chosen answer is the longer one in "
        f"{audit['longer_wins']:.1%}. {count['duplicates']:,} pairs are duplicates, {count['contradictions']:,} are "
        f"labelled both ways. They ask {count['prompts']:,} different prompts, from {count['sources']:,} source(s)."
    )
    suites = [
        f"- {markdown(name)}: {parts['pairs']['exact']['count']:,} pairs and {parts['prompts']['exact']['count']:,} "
        f"prompts are among the training pairs, {parts['pairs']['near']['count']:,} and "
        f"{parts['prompts']['near']['count']:,} more nearly"
        for name, parts in audit["overlap"].items()
    ]
    warned = [f"- **{markdown(concern['evidence'])}**" for concern in record["data"].get("concerns", ())]
    return ["## What the model saw", "", said, "", *warned, *suites, *([""] if warned or suites else [])]


def _objective(record: JsonObject) -> str:
    if record["config"]["ambiguity"] == "erm":
        return "by plain training: every example counts alike."
    if record.get("inaction"):
        return f"by what came out as plain training: **{markdown(record['inaction'])}**."
    return "against the worst reweighting of each effective batch."


def _set(config: dict[str, object]) -> str:
    if config["ambiguity"] == "erm":
        return "`erm` (none)"
    plain, ramp = config["plain_share"], config["ramp_share"]
    return f"{markdown_code(config['ambiguity'])} (plain for {plain:g} of the steps, ramp over {ramp:g})"


def _policy_rows(record: JsonObject) -> dict[str, str]:
    config, data = record["config"], record["data"]
    train = data["train"]
    against = f"{markdown_code(config['ambiguity'])}, version {config['version']}"
    return {
        "adversary over prompts": "no adversary" if config["ambiguity"] == "erm" else against,
        **_verdicts(record),
        "starting model": markdown(base_name(config["model"])),
        "reward": markdown(_rewards(config["reward_model"])),
        "prompts": f"{_source(train)}, {_used(data, 'prompts').removesuffix(' prompts')} ({data['too_long']} too long, "
        f"dropped: {_counts(train['dropped'])})",
        **_files(train),
        "estimator": f"{config['estimator']}, {config['samples']} answers per prompt, KL {config['kl_coefficient']:g} "
        f"in the {config['kl_in']}{_asking(config)}",
        "steps": f"{record['steps']}, {record['effective_batch']} answers each, learning rate "
        f"{record['learning_rate']:g}",
        "sampling": f"at most {config['max_new_tokens']} tokens, temperature {config['temperature']:g}, "
        f"top-p {config['top_p']:g}",
        "licence": f"{markdown(record.get('licence', 'unknown'))} (of the starting model; see to that of the prompts)",
        "seed": str(record["seed"]),
        "training time": _time(record),
        **_processes(record),
        **_changes(record),
    }


def _rewards(given: str | list[str]) -> str:
    """One reward, or several with their weights, each without the folders above it."""
    if isinstance(given, list):
        return " + ".join(map(_rewards, given))
    name, sign, last = given.rpartition(":")
    if sign and not Path(given).exists():  # a weight, or a function of a file
        return f"{_rewards(name)}:{last}"
    return Path(given).name if given.endswith(".py") else base_name(given)


def _asking(config: Mapping[str, object]) -> str:
    """What a policy run says of groups, lengths and draws, where that is not the default."""
    said = {
        "silent_groups": ("keep", "groups without a signal: {}"),
        "length_divisor": ("longest", "divided by the length of the {}"),
        "adversary_acts": ("weights", "the adversary {} prompts"),
    }
    chosen = {name: str(config.get(name, usual)).replace("_", " ") for name, (usual, _) in said.items()}
    return "".join(f"; {text.format(chosen[n])}" for n, (usual, text) in said.items() if chosen[n] != usual)


def _policy_results(summaries: JsonObject) -> list[str]:
    lines = [
        "## Results",
        "",
        "| suite | prompts | judge | mean score (95 % interval) | KL, nats |",
        "|---|---|---|---|---|",
    ]
    for name, summary in summaries.items():
        record = summary["overall"]
        lines += [
            f"| {markdown(name)} | {record['prompts']} | {markdown(judge)} | {_number(found['mean'])} "
            f"[{_number(found['low'])}, {_number(found['high'])}] | {record['kl']:.2f} |"
            for judge, found in record.items()
            if isinstance(found, dict)
        ]
    return [*lines, ""]


def _special(config: JsonObject) -> dict[str, str]:
    """Rows that only some runs have."""
    rows, weighed = {}, config["ambiguity"] != "erm"
    if "beta" in config:
        named = markdown(base_name(config["reference_model"] or config["model"]))
        reference = f"reference {named}" if has_reference(config["loss"]) else "no reference"
        rows["loss"] = f"{config['loss']}, beta {config['beta']:g}, {reference}"
    if config.get("last_window") == "keep" and weighed:
        rows["last window of an epoch"] = "kept: smaller than the effective batch, as large a step"
    if config.get("passes") == "carried" and weighed:
        rows["weights"] = "**approximate**: each micro-batch weighed among the latest losses (passes=carried)"
    if config["lora_rank"]:
        export = "merged" if config["merge_adapter"] else "exported alone"
        rows["adapter"] = f"LoRA of rank {config['lora_rank']}, {export}"
    return rows


def _verdicts(record: Mapping[str, object]) -> dict[str, str]:
    """What the adversary did not do, and what the data do not bear."""
    named = {"**weights**": "inaction", "**radius**": "beyond"}
    return {name: markdown(record[key]) for name, key in named.items() if record.get(key)}


def _changes(record: JsonObject) -> dict[str, str]:
    """What was changed on the way, and what other sessions did otherwise."""
    named = {"**changed on the way (--force)**": "forced", "other versions": "other_versions"}
    return {name: markdown("; ".join(record[key])) for name, key in named.items() if record.get(key)}


def _time(record: JsonObject) -> str:
    return f"{record['seconds']:.0f} s on {markdown(record['environment']['device'])}"


def _processes(record: JsonObject) -> dict[str, str]:
    """Of a run of several processes, unless it is of a version that did not note them."""
    found = record.get("distribution")
    return {"trained by": said_of_processes(found)} if found and found["processes"] > 1 else {}


def _source(file: JsonObject) -> str:
    return f"{markdown(file['file'])}, sha256 `{file['sha256'][:16]}…`"


def _used(data: JsonObject, what: str) -> str:
    of = "examples an epoch, from" if "files" in data["train"] else "of"
    return f"{data['trained_on']} {of} {data['train'][what]} {what}"


def _files(train: JsonObject) -> dict[str, str]:
    """Of a mixture, a row for each of its files; and what was found across them."""
    rows = {
        f"file {number}": f"{_source(file)}, {file.get('pairs', file.get('prompts'))} x {file['weight']:g}"
        + (f", source {markdown(file['source_name'])}" if "source_name" in file else "")
        for number, file in enumerate(train.get("files", ()), start=1)
    }
    rows |= {"files left out": markdown(", ".join(train["files_left_out"]))} if "files_left_out" in train else {}
    return rows | ({"across files": _counts(train["noted"])} if "noted" in train else {})


def _held_out(data: JsonObject, config: dict[str, object]) -> str:
    if "eval" in data:
        return _source(data["eval"])
    return f"{config['validation_share']:g} of the prompts" if config["validation_share"] else "none"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {markdown(name.replace('_', ' '))}" for name, number in counts.items()) or "none"


def _results(metrics: JsonObject) -> list[str]:
    rows = [
        f"| {markdown(name)} | {suite['pairs']} | {suite['accuracy']:.3f} "
        f"[{_number(suite['low'])}, {_number(suite['high'])}] | {suite['ties']} | {suite['longer_wins']:.3f} |"
        for name, suite in ((name, record["overall"]) for name, record in metrics.items())
    ]
    header = [
        "## Results",
        "",
        "A tie counts one half; intervals are over prompts.",
        "",
        "| suite | pairs | accuracy (95 % interval) | ties | longer wins |",
        "|---|---|---|---|---|",
    ]
    return [*header, *rows, ""]


def _versions(record: JsonObject) -> str:
    return markdown(", ".join(f"{name} {version}" for name, version in record["environment"].items()))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
