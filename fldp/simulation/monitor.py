"""What a run reports of its model after every round: public figures, or clients' private ones."""

from __future__ import annotations

import math

from torch import Tensor, nn

from fldp.mechanism.updates import load_
from fldp.simulation.evaluation import Exam
from fldp.simulation.history import History
from fldp.simulation.inputs import Records, accepted
from fldp.simulation.isolation import alone, copied, is_all_plain
from fldp.simulation.objective import try_out


class Monitor:
    """Evaluates a model as its weights move.

    Guarantee: no record reaches the run's model; a copy is evaluated.

    Parameters
    ----------
    exam : Exam
        The held-out records.
    model : nn.Module
        The prepared model; it is never run itself.
    like : Records
        The form in which it takes the exam's records.
    """

    def __init__(self, exam: Exam, model: nn.Module, like: Records) -> None:
        self._exam = exam
        self._model = model
        self._like = like
        # One copy serves all rounds where nothing in it moves.
        self._shown = copied(model) if is_all_plain(model) else None

    @classmethod
    def of(cls, exam: Exam | None, model: nn.Module) -> Monitor | None:
        """A monitor, or None without an exam.

        Parameters
        ----------
        exam : Exam, optional
            The held-out records.
        model : nn.Module
            The prepared model; a copy is tried on made-up records.

        Returns
        -------
        Monitor or None

        Raises
        ------
        ValueError
            Where model, loss and records do not fit.
        """
        if exam is None:
            return None
        x, y = exam.form()
        weights = next(model.parameters()).detach()
        with alone(weights.device):
            module = copied(model).eval()
            like = accepted(module, x, weights)
            try_out(module, like, y, exam.objective, exam.labels())
            exam.rehearse(module, like)
        return cls(exam, model, like)

    def note(self, flat: Tensor, history: History) -> float:
        """Evaluate the model at some weights, and write down what was found.

        Parameters
        ----------
        flat : Tensor
            The trained parameters (d,).
        history : History
            Of the run; what clients' own records tell goes into its private part.

        Returns
        -------
        float
            By how much it is better than another: its accuracy, or less the loss; minus infinity
            where nothing may be chosen by it.
        """
        shown = copied(self._model) if self._shown is None else self._shown
        score = self._exam.score(load_(shown, flat), self._like)
        if self._exam.private:
            history.private["metric"].append(score.metric)
            history.private["loss"].append(score.loss)
            return -math.inf
        history.metric.append(score.metric)
        history.loss.append(score.loss)
        return score.merit(self._exam.objective)
