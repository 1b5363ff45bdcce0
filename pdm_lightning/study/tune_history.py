"""The trials of a search on disk: Optuna's journal, shared by processes that ask for the next trial and tell of it.

Whoever holds a trial's lease works on it. A trial whose holder has died is taken over where it stood, with the same
values, and not begun anew under another number: a search that was killed ends with the history of an undisturbed one.
One that failed stays open to Optuna, which never changes a finished trial, and is tried again by the next call.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from pdm_lightning import lease
from pdm_lightning.seeding import derive
from pdm_lightning.study.tune_objectives import Settings
from pdm_lightning.study.tune_question import Question
from pdm_lightning.study.tune_space import Parameter, size
from pdm_lightning.study.tune_trial import Evaluation, History, as_json, from_json

JOURNAL = "journal.log"
_RECORD, _FAILURES = "record", "failures"


class Seeded(BaseSampler):
    """A sampler that forgets: what it draws follows from the seed, the trial's number and the finished trials alone.

    Parameters
    ----------
    space : sequence of Parameter
    settings : Settings
    """

    def __init__(self, space: Sequence[Parameter], settings: Settings) -> None:
        # a grid is gone through in the same order, in whichever order its sides were typed
        self.space, self.settings = sorted(space, key=lambda parameter: parameter.key), settings

    def _fresh(self, trial: FrozenTrial, *names: str) -> BaseSampler:
        seed = derive(self.settings.seed, "tune", trial.number, *names) % 2**32
        if self.settings.sampler == "random":
            return RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older versions call these two arguments experimental
            return TPESampler(
                seed=seed, n_startup_trials=self.settings.startup, multivariate=True, constant_liar=True
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is drawn together."""
        if self.settings.sampler == "grid":
            return {}
        return self._fresh(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw these together."""
        if self.settings.sampler == "grid":
            return {}
        return self._fresh(trial, "together").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter by itself, or look it up in the grid."""
        if self.settings.sampler == "grid":
            return self._grid(trial.number, param_name)
        return self._fresh(trial, "alone", param_name).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _grid(self, number: int, name: str) -> Any:
        """Value of a parameter at the number-th point, in an order that the seed shuffles."""
        points = size(self.space)
        assert points is not None
        keys = [derive(self.settings.seed, "grid", point) for point in range(points)]
        rest = sorted(range(points), key=keys.__getitem__)[number % points]
        for parameter in reversed(self.space):
            rest, position = divmod(rest, len(parameter.values))
            if parameter.key == name:
                return position if parameter.ordered else parameter.values[position]
        raise KeyError(name)


class Trials:
    """The trials of one question.

    Parameters
    ----------
    folder : Path
        Holds the journal, and the leases of running trials, beside the report; it is made where it is missing.
    question : Question

    Raises
    ------
    ValueError
        Where the journal cannot be read.
    """

    def __init__(self, folder: Path, question: Question) -> None:
        self.folder, self.question = folder, question
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / JOURNAL
        try:
            self.study = self._open(path)
        except OSError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{path} cannot be read as a history of trials ({reason}): move it away, and type the same command: "
                "the artifacts of its trials are in the store"
            ) from error
        self.leases = folder / "leases" / question.key
        self.distributions = {p.key: p.distribution() for p in question.space}
        # how often each had failed before this call: one that fails meanwhile, in any process, is left to the next
        self._failures = {t.number: _failures(t) for t in self._begun() if _has_failed(t)}

    def _open(self, path: Path) -> Study:
        settings = self.question.settings
        _mend(path)
        # median pruning: from the sixth trial on, below the median of the trials so far at the same step
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if settings.pruning == "median":
            pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        return optuna.create_study(
            study_name=self.question.key,
            storage=JournalStorage(JournalFileBackend(str(path))),
            sampler=Seeded(self.question.space, settings),
            pruner=pruner,
            direction=StudyDirection[settings.direction.upper()],
            load_if_exists=True,
        )

    @contextmanager
    def claim(self) -> Iterator[Trial | None]:
        """Hold a trial that needs work: one whose process has died, one that an earlier call left as failed or, while
        fewer than asked for are there, a new one.

        Yields
        ------
        Trial or None
            With all its values drawn; None where there is none to be had.
        """
        with ExitStack() as held:
            # one process asks at a time: what is drawn follows from what is there
            with lease.hold(self.leases / "ask.json", "the next trial"):
                trial = self._again(held) or self._new(held)
            yield trial

    def _again(self, held: ExitStack) -> Trial | None:
        """A trial that was begun, with the values that it has."""
        for number in [t.number for t in self._begun() if self._is_left(t)]:
            with ExitStack() as taken:
                # whoever had it may have told of it since it was seen
                if not self._take(number, taken) or not self._is_left(self._trial(number)):
                    continue
                held.enter_context(taken.pop_all())
            trial = Trial(self.study, self._trial(number)._trial_id)
            trial.set_user_attr(_RECORD, None)
            for parameter in self.question.space:
                _suggest(trial, parameter)  # values that it has already stay
            return trial
        return None

    def _is_left(self, trial: FrozenTrial) -> bool:
        """Whether this call may take it up, should nobody hold it."""
        if _has_failed(trial):
            return _failures(trial) == self._failures.get(trial.number)
        return trial.state is TrialState.RUNNING

    def _new(self, held: ExitStack) -> Trial | None:
        if len(self.study.get_trials(deepcopy=False)) >= self.question.trials:
            return None
        trial = self.study.ask(self.distributions)
        self._take(trial.number, held)
        return trial

    def _take(self, number: int, held: ExitStack) -> bool:
        path = self.leases / f"{number}.json"
        if lease.is_held(path):
            return False
        taken = held.enter_context(lease.hold(path, f"trial {number}", ready=lambda: lease.is_held(path)))
        return taken is not None

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _begun(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def running(self) -> list[FrozenTrial]:
        """Trials that were begun and not told of."""
        return [trial for trial in self._begun() if not _has_failed(trial)]

    def chosen(self, trial: Trial | FrozenTrial) -> dict[str, str]:
        """The point of a trial, as it is typed."""
        return {p.key: p.shown(trial.params[p.key]) for p in self.question.space}

    def watch(self, trial: Trial, history: History) -> str:
        """Report a training's validation accuracies; why it need not go on, where it lags behind the others."""
        if self.question.settings.pruning == "none":
            return ""
        known = self._trial(trial.number).intermediate_values
        for row in (row for row in history if "val/accuracy" in row):
            step, accuracy = int(row["step"]), row["val/accuracy"]
            if step not in known:
                trial.report(accuracy, step)
            # a process may have died between its report and the verdict
            if step >= max(known, default=0) and trial.should_prune():
                return f"accuracy {accuracy:.3f} after {step} steps, below the median of the trials before"
        return ""

    def tell(self, trial: Trial, evaluation: Evaluation) -> None:
        """Finish a trial, or leave it to the next call where it failed; what it came to stays with it."""
        if evaluation.state == "failed":
            trial.set_user_attr(_FAILURES, trial.user_attrs.get(_FAILURES, 0) + 1)
        trial.set_user_attr(_RECORD, as_json(evaluation))
        if evaluation.state == "failed":
            return
        state = TrialState.COMPLETE if evaluation.state == "complete" else TrialState.PRUNED
        value = evaluation.values.get(self.question.settings.objective)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.study.tell(
                trial, value.mean if state is TrialState.COMPLETE and value else None, state=state
            )

    def told(self) -> list[tuple[int, dict[str, str], Evaluation]]:
        """Number, point and outcome of each trial that is finished or failed, in the order of the numbers."""
        told = [
            t
            for t in self.study.get_trials(deepcopy=False)
            if _has_failed(t) or (t.state.is_finished() and _RECORD in t.user_attrs)
        ]
        return [(t.number, self.chosen(t), from_json(t.user_attrs[_RECORD])) for t in told]

    def importances(self) -> dict[str, float]:
        """Share of the objective's variance that each parameter explains (fANOVA); empty where it cannot be told."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < 2 or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Mapping[str, float] = optuna.importance.get_param_importances(
                self.study, evaluator=evaluator, normalize=True
            )
        return dict(found)


def _has_failed(trial: FrozenTrial) -> bool:
    record = trial.user_attrs.get(_RECORD)
    return trial.state is TrialState.RUNNING and record is not None and record["state"] == "failed"


def _failures(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(_FAILURES, 0))


def _suggest(trial: Trial, parameter: Parameter) -> None:
    """Draw a parameter as `ask` does, through the one door that Optuna has for a trial that exists."""
    drawn = parameter.distribution()
    if isinstance(drawn, CategoricalDistribution):
        trial.suggest_categorical(parameter.key, drawn.choices)
    elif isinstance(drawn, IntDistribution):
        trial.suggest_int(parameter.key, drawn.low, drawn.high, log=drawn.log)
    elif isinstance(drawn, FloatDistribution):
        trial.suggest_float(parameter.key, drawn.low, drawn.high, log=drawn.log)


def _mend(path: Path) -> None:
    """Cut off a line that a power cut left unfinished: the next one would be written behind it."""
    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
                os.fsync(file.fileno())
    finally:
        lock.release()
