"""The help of ``pdml tune``; nothing here imports PyTorch."""

from __future__ import annotations

import re

from pdm_lightning.study.words import CONFIG, conf_dir

_USAGE = """\
pdml tune [overrides]: search hyper-parameters on validation images; at least one override says what is searched.

What may be searched: values of model, defense, detector, optimizer, budget.train, data.augment, data.pairs
  'key=interval(0, 1)'               any number between the two, both among them
  'key=tag(log, interval(0.01, 1))'  on a logarithmic scale; 'key=int(interval(10, 200))' for whole numbers
  'key=range(0.1, 0.6, 0.1)'         steps, without the second end: 0.1, 0.2, ..., 0.5
  'key=choice(0.1, 0.3)'             one of these; key=0.1,0.3 is the same; an option of a group, too: defense=ce,pdm
Quote what has brackets, for the shell. Any other override has one value: data=mnist budget=cpu model=resnet20.

Examples
  pdml tune experiment=tune_pdm
  pdml tune 'defense.term.rvl.weight=tag(log, interval(0.01, 1))' defense.q=0.1,0.3,0.5 tune.objective=val_dbi
  pdml tune 'optimizer.lr=tag(log, interval(1e-4, 1e-1))' defense=ce,pdm tune.seeds=3 tune.pruning=median
  pdml tune 'detector.bandwidth_scale=interval(0.5, 2)' tune.objective=val_auc attack=bim_005
  pdml tune 'defense.q=range(0, 1, 0.1)' defense=pdm,rce_rvl tune.sampler=grid tune.trials=100

How it is searched: tune.<key>=..., the default, and what else to type
{settings}
The same command goes on where it was, tries again what had failed, and in several processes shares the trials. History,
report, tune.csv and tune.json lie in outputs/tune/<name>/ (name=..., paths.output=...).
pdml run --help lists the options of all groups; pdml tune --cfg job prints the configuration.
"""


def usage() -> str:
    """The help, with the section ``tune`` of the shipped configuration and its comments."""
    text = (conf_dir() / f"{CONFIG}.yaml").read_text(encoding="utf-8")
    section = re.search(r"(?m)^tune:.*\n((?:  .*\n)+)", text)
    assert section is not None
    return _USAGE.format(settings=section[1])
