"""The Hydra sweeper of pdm-lightning: Hydra asks, the study plans.

Hydra imports every module of this folder at each start of any Hydra application, so nothing heavy is imported here.
"""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, ListConfig


class StudySweeper(Sweeper):
    """Expand the axes of a sweep and hand every cell to the task function, in this process.

    Parameters
    ----------
    params : mapping of str to str, optional
        Axes that an experiment file asks for, as ``{"defense": "ce,rce,pdm"}``. An override of the same name on the
        command line takes the axis' place.
    also : list of mapping, optional
        Further sweeps of the same experiment, each as the axes in which it differs from `params`: for what is no
        full grid, as attacks that only one threat model allows. Where an override on the command line names an axis of
        one, the values that both name are left; without any, the whole sweep is left out.
    """

    def __init__(self, params: DictConfig | None = None, also: ListConfig | None = None) -> None:
        self.params, self.also = params, also
        self.context: HydraContext | None = None
        self.task: TaskFunction | None = None
        self.config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over."""
        self.context, self.task, self.config = hydra_context, task_function, config
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the configuration

    def sweep(self, arguments: list[str]) -> Any:
        """Call the task function once with each cell of the sweep.

        Parameters
        ----------
        arguments : list of str
            The overrides of the command line, sweeps among them.
        """
        from pdm_lightning.study.axes import expand, narrowed

        if self.context is None or self.task is None or self.config is None:
            raise RuntimeError("Hydra calls setup() before sweep()")
        loader, name = self.context.config_loader, self.config.hydra.job.config_name

        def compose(overrides: list[str]) -> DictConfig:
            return loader.load_configuration(name, overrides, run_mode=RunMode.RUN)

        params = {str(key): value for key, value in (self.params or {}).items()}
        grids = [(params, arguments)]
        for more in self.also or ():
            left = narrowed({str(key): value for key, value in more.items()}, arguments, loader)
            if left is not None:
                grids.append((params | left[0], left[1]))
        results = []
        for grid, typed in grids:
            for cell in expand([f"{key}={value}" for key, value in grid.items()], typed, compose, loader):
                results.append(self.task(cell))  # type: ignore[arg-type]
        return results
