"""Ambiguity sets as text, for recipes and the command line, and the grammar of all that is written like them.

    NAME[:NUMBER[/NUMBER...]][:INNER][+NAME:NUMBER...][,KEY=VALUE...]        "tv:0.2,max_ratio=8"

``Spec`` (in ``texts``) takes any text apart and knows no name. A ``Form`` says how one name is written and what it
makes, and ``read`` goes from a text to what it means, or says in one sentence why it means nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from typing import Any, Generic, TypeVar

from .sets.ambiguity import AmbiguitySet, in_text
from .sets.composition import Composite
from .texts import Option, Spec, number_in, part_of

T_co = TypeVar("T_co", covariant=True)
_SUM = "cvar:0.4+kl_penalty:0.1"
_DEEPEST = 50  # names inside one another: nobody means more, and Python does not recurse without end


@dataclass(frozen=True)
class Form(Generic[T_co]):
    """How one name is written, and what it makes.

    Args:
        make: Called with its number, what its inner text makes, and its options by name, as far as it has them.
        example: A text that can be read.
        size: What its number is called; "" for none.
        many: Whether there may be several numbers, given as a tuple.
        inner: What the thing inside is called; "" for none.
        options: Its options, ``float`` or ``str`` each.
        needed: The options that cannot be left out.
        adds: Whether what it makes can be added to another, after a plus sign.
    """

    make: Callable[..., T_co]
    example: str
    size: str = ""
    many: bool = False
    inner: str = ""
    options: Mapping[str, type] = field(default_factory=dict[str, type])
    needed: Sequence[str] = ()
    adds: bool = False

    @property
    def plain(self) -> bool:
        """Whether nothing may follow the name."""
        return not (self.size or self.inner or self.options)


def read(text: str, forms: Mapping[str, Form[T_co]], what: str) -> T_co:
    """What a text means.

    Args:
        text: In the grammar of this module.
        forms: The names that are known.
        what: What a text stands for, as errors call it: "ambiguity".

    Raises:
        ValueError: In one sentence: an unknown name (the known ones are listed, and the nearest), a number that is
            missing or malformed, an option that is unknown, malformed, repeated or missing, or what ``make`` refuses.
    """
    said, spec = f"{what} {text!r}", Spec.of(text)
    chain: list[tuple[Form[T_co], list[Any]]] = []
    for layer in spec.layers():
        form = forms.get(layer.name)
        if form is None or (form.plain and (layer.numbers or layer.inner or layer.options)):
            place = f"{what} {str(layer)!r} in {text!r}" if chain else said
            raise ValueError(f"unknown {place}{_known(layer.name, forms)}")
        size = _size(layer, form, said)
        for part in layer.plus:
            form = _sum(form, part, forms, said)
        chain.append((form, size))
        if len(chain) > _DEEPEST:
            raise ValueError(f"{said} has more than {_DEEPEST} names inside one another; leave some out.")
    options = _dealt(spec.options, [form for form, _ in chain], said)
    made: Any = None
    for (form, size), given in zip(reversed(chain), reversed(options), strict=True):
        made = form.make(*size, *([made] if form.inner else []), **given)
    return made


def _known(name: str, forms: Mapping[str, Form[Any]]) -> str:
    """The rest of the sentence on an unknown name: the nearest form, and all of them."""
    shapes = ((name, form.size.upper(), form.inner.upper()) for name, form in forms.items())
    listed = f"the known ones are: {', '.join(':'.join(filter(None, shape)) for shape in shapes)}."
    close = difflib.get_close_matches(name.lower(), forms, n=1)
    head, sign, size = name.partition("=")
    if sign and head in forms and number_in(size) is not None:  # tv=0.2
        return f", did you mean {f'{head}:{size}'!r}? T{listed[1:]}"
    return f", did you mean {forms[close[0]].example!r}? T{listed[1:]}" if close else f"; {listed}"


def _size(layer: Spec, form: Form[Any], said: str) -> list[Any]:
    """The number of a layer, none or one of them, after a look at whether what follows the name suits the form."""
    numbers, inner, odd = in_text(layer.numbers), str(layer.inner or ""), None
    if form.size and not numbers and not inner:
        raise ValueError(f"{said} lacks its {form.size}; write for example {form.example!r}.")
    if form.size and not numbers:
        odd = layer.layers()[1].name if form.inner else inner
    elif numbers and (not form.size or (len(layer.numbers) > 1 and not form.many)):
        odd = numbers
    elif layer.inner and not form.inner:
        odd = f"{numbers}:{inner}"
    if odd is not None:
        odd = next((part.strip() for part in odd.split("/") if number_in(part) is None), odd)
        belongs = "number" if form.size else form.inner or "option"
        raise ValueError(f"{said} has {odd!r} where a {belongs} belongs, as in {form.example!r}.")
    if form.inner and not inner:
        raise ValueError(f"{said} lacks its {form.inner}; write for example {form.example!r}.")
    return [layer.numbers] if len(layer.numbers) > 1 else list(layer.numbers)


def _sum(form: Form[T_co], part: Spec, forms: Mapping[str, Form[T_co]], said: str) -> Form[T_co]:
    """The form whose making adds what a part after a plus sign makes, from that part's own options."""
    other = forms.get(part.name)
    if other is None or not other.adds or not form.adds:
        raise ValueError(f"{said} cannot add {str(part)!r}: it takes a set and a penalty, as in {_SUM!r}.")
    size = _size(part, other, said)

    def make(*given: Any, **options: Any) -> Any:
        one: Any = form.make(*given, **{key: value for key, value in options.items() if key in form.options})
        return one + other.make(*size, **{key: options[key] for key in other.needed})

    options = {**form.options, **{key: other.options[key] for key in other.needed}}
    return replace(form, make=make, options=options, needed=list(dict.fromkeys([*form.needed, *other.needed])))


def _dealt(options: Sequence[Option], forms: Sequence[Form[Any]], said: str) -> list[dict[str, Any]]:
    """The options of every form: each takes what it knows, the outer ones first and from the end of the text.

    So ``shuffled:shuffled:tv:0.2,within=a`` is shuffled within a by the outer one, and anywhere by the inner.
    """
    left, last = list(options), forms[-1]
    dealt: list[dict[str, str]] = []
    for form in forms[:-1]:
        mine = {key: (at, value) for at, (key, value) in enumerate(left) if key in form.options and value is not None}
        dealt.append({key: value for key, (_, value) in mine.items()})
        left = [option for at, option in enumerate(left) if at not in {at for at, _ in mine.values()}]
    if not last.options:  # a comma with nothing behind it
        left = [option for option in left if option != ("", None)]
    dealt.append({})
    for key, value in left:
        if key not in last.options or value is None or key in dealt[-1]:
            raise ValueError(f"{said} has the option {part_of((key, value))!r}, but {_allowed(forms)}.")
        dealt[-1][key] = value
    return [_values(form, given, said) for form, given in zip(forms, dealt, strict=True)]


def _allowed(forms: Sequence[Form[Any]]) -> str:
    kinds = {key: kind for form in forms for key, kind in form.options.items()}
    listed = ", ".join(f"{key}={_shape(kind)}" for key, kind in kinds.items())
    return f"the allowed ones, once each, are: {listed}" if listed else "takes none"


def _shape(kind: type) -> str:
    return "NAME" if kind is str else "NUMBER"


def _values(form: Form[Any], given: Mapping[str, str], said: str) -> dict[str, Any]:
    """The options of one form, numbers as such."""
    for key in form.needed:
        if key not in given:
            raise ValueError(f"{said} lacks {key}; add ',{key}={_shape(form.options[key])}'.")
    values = {key: number_in(text) if form.options[key] is float else text for key, text in given.items()}
    for key, value in values.items():
        if value is None:
            raise ValueError(f"{said} has {given[key]!r} where a number belongs, as in {form.example!r}.")
    return values


def _subclasses(kind: type[AmbiguitySet], attribute: str) -> dict[str, type[AmbiguitySet]]:
    """Return every class below ``kind`` that states ``attribute`` itself, by its value."""
    found: dict[str, type[AmbiguitySet]] = {}
    waiting = [kind]
    while waiting:
        children = waiting.pop().__subclasses__()
        found |= {vars(child)[attribute]: child for child in children if attribute in vars(child)}
        waiting.extend(children)
    return dict(sorted(found.items()))


def set_forms() -> dict[str, Form[AmbiguitySet | None]]:
    """The sets that text can name, and ``erm``, which makes None; a set that holds an array has no text."""
    forms: dict[str, Form[AmbiguitySet | None]] = {"erm": Form(lambda: None, "erm")}
    wrappers = _subclasses(Composite, "option")
    for name, kind in _subclasses(AmbiguitySet, "spec").items():
        if kind.from_text:
            own = {known.name: known.default is MISSING for known in fields(kind) if known.name != kind.size}
            forms[name] = Form(
                make=partial(_set, kind, wrappers),
                example=f"{name}:{kind.example}",
                size=kind.size,
                many=True,
                options=dict.fromkeys(own, float) | {key: str if key == "by" else float for key in wrappers},
                needed=[key for key, lacking in own.items() if lacking],
                adds=True,
            )
    return forms


def _set(kind: Any, wrappers: Mapping[str, Any], size: Any, /, **options: Any) -> AmbiguitySet:
    """The set with its own options, and around it the wrappers in the order written."""
    chosen = kind(**{kind.size: size}, **{key: value for key, value in options.items() if key not in wrappers})
    for key, value in options.items():
        chosen = wrappers[key](chosen, value) if key in wrappers else chosen
    return chosen


def parse_ambiguity(spec: str) -> AmbiguitySet | None:
    """Read an ambiguity set from text.

    Args:
        spec: ``"erm"`` for plain averaging, else ``NAME:SIZE`` with optional ``,OPTION=VALUE`` parts:
            ``"tv:0.2"``, ``"tv:0.2,max_ratio=8"``, ``"cvar:0.3"``, ``"chi2:0.5"``, ``"kl:0.3"``,
            ``"cressie_read:0.5,order=1.5"``, ``"spectral:0.1/0.3/0.6"``, ``"kl_penalty:1"``. Two options wrap
            any of them, in the order written: ``by=COLUMN`` reweights groups, ``trim=FRACTION`` drops the
            largest losses first. A penalty is added to a set by a plus sign, before the options of both:
            ``"cvar:0.4+kl_penalty:0.1"``.

    Returns:
        The set, or None for ``"erm"``. A set ``by=COLUMN`` needs ``bind`` before it can be solved.

    Raises:
        ValueError: Unknown name (the known ones are listed), unknown option, missing or malformed number, or
            a number outside its interval.

    Example:
        >>> parse_ambiguity("tv:0.2,max_ratio=8")
        TotalVariation(radius=0.2, max_ratio=8.0)
        >>> str(parse_ambiguity("cvar:0.3,by=source"))
        'cvar:0.3,by=source'
        >>> str(parse_ambiguity("tv:0.2+kl_penalty:0.1, max_ratio=8"))
        'tv:0.2+kl_penalty:0.1,max_ratio=8'
    """
    return read(spec, set_forms(), "ambiguity")
