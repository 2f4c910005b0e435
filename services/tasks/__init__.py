"""The NLP tasks: one file each, registered here. A new task is its file, this line and its rpc."""

from services.errors import InvalidRequest
from services.tasks.base import Architecture, Column, Task
from services.tasks.example import Encoded, Example, Facts
from services.tasks.feature_extraction.task import FeatureExtraction
from services.tasks.question_answering.task import QuestionAnswering
from services.tasks.tensors import TensorSpec
from services.tasks.text2text_generation.task import Text2TextGeneration
from services.tasks.text_classification.task import TextClassification
from services.tasks.text_generation.task import TextGeneration
from services.tasks.token_classification.task import TokenClassification

__all__ = [
    "TASKS",
    "Architecture",
    "Column",
    "Encoded",
    "Example",
    "Facts",
    "Task",
    "TensorSpec",
    "find_task",
]

TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        TextClassification(),
        TextGeneration(),
        QuestionAnswering(),
        TokenClassification(),
        FeatureExtraction(),
        Text2TextGeneration(),
    )
}


def find_task(task_id: str, *, field: str = "task") -> Task:
    """Returns the task. Raises InvalidRequest that names `field` and the known tasks."""
    try:
        return TASKS[task_id]
    except KeyError:
        known = ", ".join(TASKS)
        raise InvalidRequest.field(
            field, f"unknown task {task_id!r}; known: {known}", reason="UNKNOWN_TASK"
        ) from None
