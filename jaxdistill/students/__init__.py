"""Students for those who use them: a folder with all they need, predictions, other formats.

A run leaves its last student in ``student/``; :func:`save` makes such a folder of any net.

    student = students.load("runs/mae")
    student.predict(["cat.png", "dog.png"])
    students.export("runs/mae", to="timm", out="runs/mae_for_timm")
"""

from jaxdistill.students.exporting import TARGETS, export
from jaxdistill.students.predicting import Prediction, Student, load
from jaxdistill.students.saving import About, Kind, save
from jaxdistill.students.seeing import Arrays, Images, Texts

__all__ = [
    "TARGETS",
    "About",
    "Arrays",
    "Images",
    "Kind",
    "Prediction",
    "Student",
    "Texts",
    "export",
    "load",
    "save",
]
