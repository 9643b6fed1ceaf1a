"""What a request to a model of some task looks like: pydantic models made from the task's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, create_model

from .refusal import Refusal

if TYPE_CHECKING:
    from electra_fast.workflows.finetuning.task import Task

_TEXTS = Annotated[list[str], Field(min_length=1)]
# Fields of an input by task: type and default (... where it has to be given).
_FIELDS: dict[str, dict[str, tuple[Any, Any]]] = {
    "classification": {"text": (str, ...), "text_pair": (str, ...)},
    "ner": {"text": (str | None, None), "tokens": (_TEXTS | None, None)},
    "qa": {"question": (str, ...), "context": (str, ...)},
    "choice": {"context": (str, ""), "question": (str, ""), "choices": (_TEXTS, ...)},
    "translation": {"source": (str, ...)},
}
# Inputs of each task to try, for the page that describes a server.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "classification": [
        {"text": "A warm and funny film; I would see it again tomorrow.", "text_pair": "I liked the film."},
        {"text": "Two hours that I will never get back.", "text_pair": "The film was too short."},
    ],
    "ner": [{"text": "Marie Curie was born in Warsaw and worked in Paris."}],
    "qa": [
        {
            "question": "Where was Marie Curie born?",
            "context": "Marie Curie was born in Warsaw in 1867. She moved to Paris in 1891 to study physics.",
        }
    ],
    "choice": [{"context": "It began to rain, so", "choices": ["she opened her umbrella.", "she watered the garden."]}],
    "translation": [{"source": "Two young men play football in the park."}],
}
_TAGS = frozenset(("<one>", "<many>", "<text>", "<object>"))


def examples(task: Task) -> list[Any]:
    """Inputs to try: texts where a text is enough."""
    names = task.inputs
    known = [{name: value for name, value in example.items() if name in names} for example in EXAMPLES[task.name]]
    return [example[names[0]] for example in known] if len(names) == 1 else known


class Schemas:
    """The models of a task's requests and answers.

    Args:
        max_inputs: of a request.

    Attributes:
        Request, Answer: pydantic models, for the page.
        example: a request of this task.
    """

    def __init__(self, task: Task, max_inputs: int) -> None:
        self._max_inputs = max_inputs
        self.example = {"inputs": examples(task)}
        strict = ConfigDict(extra="forbid", strict=True)
        fields = _FIELDS[task.name]
        if task.name == "classification":
            fields = {name: fields[name] for name in task.inputs}
        item: Any = create_model("Input", __config__=strict, **fields)
        if len(task.inputs) == 1:
            text_or_object = Annotated[str, Tag("<text>")] | Annotated[item, Tag("<object>")]
            item = Annotated[text_or_object, Discriminator(_text_or_object)]
        many = Annotated[list[item], Field(min_length=1)]
        inputs = Annotated[Annotated[item, Tag("<one>")] | Annotated[many, Tag("<many>")], Discriminator(_one_or_many)]
        about = f"One input, or a list of up to {max_inputs}."
        self.Request = create_model("PredictRequest", __config__=strict, inputs=(inputs, Field(description=about)))
        self.Answer = create_model(
            "PredictAnswer", predictions=(list[dict[str, Any]], Field(description="One for each input, in order."))
        )
        self._adapter = TypeAdapter(self.Request)

    def inputs(self, value: Any) -> list[str | dict[str, Any]]:
        """The inputs of a request, as the task takes them.

        Raises:
            Refusal: 413 for too many, 422 for wrong fields, which are named.
        """
        if isinstance(value, Mapping) and isinstance(value.get("inputs"), list):
            count = len(value["inputs"])
            if count > self._max_inputs:
                raise Refusal(413, f"a request may have {self._max_inputs} inputs, got {count}: send several requests")
        try:
            inputs = self._adapter.validate_python(value).inputs
        except ValidationError as error:
            raise Refusal(422, [_mistake(found) for found in error.errors(include_url=False)]) from None
        return [_plain(item) for item in (inputs if isinstance(inputs, list) else [inputs])]


def _plain(item: str | BaseModel) -> str | dict[str, Any]:
    return item if isinstance(item, str) else {name: value for name, value in item if value is not None}


def _mistake(error: Mapping[str, Any]) -> dict[str, Any]:
    """As FastAPI words it: where, what, of which kind. (The value is left out: it may be long.)"""
    return {
        "loc": ["body", *(part for part in error["loc"] if part not in _TAGS)],
        "msg": error["msg"],
        "type": error["type"],
    }


def _one_or_many(value: Any) -> Literal["<one>", "<many>"]:
    return "<many>" if isinstance(value, list) else "<one>"


def _text_or_object(value: Any) -> Literal["<text>", "<object>"]:
    return "<text>" if isinstance(value, str) else "<object>"
