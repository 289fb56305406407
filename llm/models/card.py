"""The model card: what a checkpoint was trained on, against which adversary, and how it did."""

from __future__ import annotations

from typing import Any

from ..run.escaping import markdown, markdown_code
from ..run.kinds import Kind, kind_of
from .usage import base_name, header, use


def model_card(record: dict[str, Any], metrics: dict[str, Any] | None = None) -> str:
    """Markdown for ``README.md`` beside the weights.

    Args:
        record: What ``run.json`` holds.
        metrics: Suite records of ``llm.judging.accuracy.summarise`` by suite name, when the model was evaluated.
    """
    config, data, kind = record["config"], record["data"], _kind(record)
    train = data["train"]
    cut = {name: number for name, number in data["truncation"].items() if name != "pairs"}
    lines = [
        *header(record, pipeline=kind.pipeline, tag=kind.tag),
        f"# {kind.result}",
        "",
        kind.text,
        _objective(record),
        "",
        "| | |",
        "|---|---|",
        f"| ambiguity set | {_set(config)} |",
        *([f"| **weights** | {markdown(record['inaction'])} |"] if record.get("inaction") else []),
        f"| starting model | {markdown(base_name(config['model']))} |",
        f"| training data | {markdown(train['file'])}, sha256 `{train['sha256'][:16]}…`, {data['trained_on']} of "
        f"{train['pairs']} pairs |",
        f"| held-out data | {_held_out(data, config)} |",
        f"| dropped pairs | {_counts(train['dropped'])} |",
        f"| truncated | {_counts(cut)} at max_length {config['max_length']} |",
        f"| steps | {record['steps']}, effective batch {record['effective_batch']}, "
        f"learning rate {record['learning_rate']:g} |",
        f"| licence | {markdown(record.get('licence', 'unknown'))} (of the starting model; see to that of the data) |",
        f"| seed | {record['seed']} (subset seed {config['subset_seed']}) |",
        f"| exported iterate | {config['final']} |",
        *_special(record),
        f"| training time | {record['seconds']:.0f} s on {markdown(record['environment']['device'])} |",
        "",
        *(_results(metrics) if metrics else ["Not evaluated.", ""]),
        *use(record, reward=kind.name == "reward"),
        "## Versions",
        "",
        _versions(record),
        "",
    ]
    return "\n".join(lines)


def _kind(record: dict[str, Any]) -> Kind:
    if (kind := kind_of(record["kind"])) is None:
        raise ValueError(f"a run of kind {record['kind']!r} has no card")
    return kind


def _objective(record: dict[str, Any]) -> str:
    if record["config"]["ambiguity"] == "erm":
        return "by plain training: every example counts alike."
    if record.get("inaction"):
        return f"by what came out as plain training: **{markdown(record['inaction'])}**."
    return "against the worst reweighting of each effective batch."


def _set(config: dict[str, Any]) -> str:
    if config["ambiguity"] == "erm":
        return "`erm` (none)"
    plain, ramp = config["plain_share"], config["ramp_share"]
    return f"{markdown_code(config['ambiguity'])} (plain for {plain:g} of the steps, ramp over {ramp:g})"


def policy_card(record: dict[str, Any], summaries: dict[str, Any] | None = None) -> str:
    """Markdown for ``README.md`` beside a policy trained on its own answers.

    Args:
        record: What ``run.json`` holds.
        summaries: Suite records of ``llm.policy.judging.summarise_policy`` by suite name.
    """
    config, train, kind = record["config"], record["data"]["train"], _kind(record)
    against = f"{markdown_code(config['ambiguity'])}, version {config['version']}"
    robust = "no adversary" if config["ambiguity"] == "erm" else against
    rows = {
        "adversary over prompts": robust,
        **({"**weights**": markdown(record["inaction"])} if record.get("inaction") else {}),
        "starting model": markdown(base_name(config["model"])),
        "reward": markdown(base_name(config["reward_model"])),
        "prompts": f"{markdown(train['file'])}, sha256 `{train['sha256'][:16]}…`, {record['data']['trained_on']} of "
        f"{train['prompts']} ({record['data']['too_long']} too long, dropped: {_counts(train['dropped'])})",
        "estimator": f"{config['estimator']}, {config['samples']} answers per prompt, KL {config['kl_coefficient']:g} "
        f"in the {config['kl_in']}",
        "steps": f"{record['steps']}, {record['effective_batch']} answers each, learning rate "
        f"{record['learning_rate']:g}",
        "sampling": f"at most {config['max_new_tokens']} tokens, temperature {config['temperature']:g}, "
        f"top-p {config['top_p']:g}",
        "licence": f"{markdown(record.get('licence', 'unknown'))} (of the starting model; see to that of the prompts)",
        "seed": str(record["seed"]),
        "training time": f"{record['seconds']:.0f} s on {markdown(record['environment']['device'])}",
        **({"**changed on the way (--force)**": markdown("; ".join(record["forced"]))} if record["forced"] else {}),
        **({"other versions": markdown("; ".join(record["other_versions"]))} if record.get("other_versions") else {}),
    }
    lines = [
        *header(record, pipeline=kind.pipeline, tag=kind.tag), f"# {kind.result}", "", kind.text, "",
        "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items()), "",
        *(_policy_results(summaries) if summaries else ["Not evaluated.", ""]),
        *use(record, reward=False),
        "## Versions", "", _versions(record), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _policy_results(summaries: dict[str, Any]) -> list[str]:
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


def _special(record: dict[str, Any]) -> list[str]:
    """Rows that only some runs have."""
    config, rows = record["config"], []
    if "beta" in config:
        reference = markdown(base_name(config["reference_model"] or config["model"]))
        rows.append(f"| loss | {config['loss']}, beta {config['beta']:g}, reference {reference} |")
    if config.get("last_window") == "keep" and config["ambiguity"] != "erm":
        rows.append("| last window of an epoch | kept: smaller than the effective batch, as large a step |")
    if config.get("passes") == "carried" and config["ambiguity"] != "erm":
        rows.append("| weights | **approximate**: each micro-batch weighed among the latest losses (passes=carried) |")
    if config["lora_rank"]:
        export = "merged" if config["merge_adapter"] else "exported alone"
        rows.append(f"| adapter | LoRA of rank {config['lora_rank']}, {export} |")
    if record["forced"]:
        rows.append(f"| **changed on the way (--force)** | {markdown('; '.join(record['forced']))} |")
    if record.get("other_versions"):
        rows.append(f"| other versions | {markdown('; '.join(record['other_versions']))} |")
    return rows


def _held_out(data: dict[str, Any], config: dict[str, Any]) -> str:
    if "eval" in data:
        return f"{markdown(data['eval']['file'])}, sha256 `{data['eval']['sha256'][:16]}…`"
    return f"{config['validation_share']:g} of the prompts" if config["validation_share"] else "none"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {markdown(name.replace('_', ' '))}" for name, number in counts.items()) or "none"


def _results(metrics: dict[str, Any]) -> list[str]:
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


def _versions(record: dict[str, Any]) -> str:
    return markdown(", ".join(f"{name} {version}" for name, version in record["environment"].items()))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
