"""Records of another shape than ours, and what they mean: for tests of the mapping."""

from __future__ import annotations

ASKED = ["Which tea?", 'How long, "exactly"?', "A river?", "Butter\nor wax?"]
GOOD = ["Black.", "Twelve = 12.", "The Nile, north.", "Butter."]
BAD = ["It's a plant.", "Two hours", "Danube; perhaps", "Neither"]
RAW = [{"q": q, "good one": g, "bad": b} for q, g, b in zip(ASKED, GOOD, BAD, strict=True)]
PLAIN = "prompt=q,chosen=good one,rejected=bad"
SIDED = [  # the second answer is the good one in every second record
    {"q": q, "left": g if i % 2 == 0 else b, "right": b if i % 2 == 0 else g}
    for i, (q, g, b) in enumerate(zip(ASKED, GOOD, BAD, strict=True))
]
SIDES = "prompt=q,first=left,second=right,winner=says"


def user(text, *before):
    return (*before, {"role": "user", "content": text})


def system(text):
    return {"role": "system", "content": text}


def texts(pairs):
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]


TRUTH = [(user(q), g, b) for q, g, b in zip(ASKED, GOOD, BAD, strict=True)]


def told(values, rows=SIDED):
    return [row | {"says": value} for row, value in zip(rows, values, strict=True)]
