"""A study's end: its runs' stored outcomes gathered into the table, the report and the tracker."""

from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from torch import Tensor

from anastyle.checkpoint import is_complete, load_tensors, write_json
from anastyle.evaluation.measure import sheet, values_of
from anastyle.evaluation.tables import Row, write_tables
from anastyle.experiment import Experiment
from anastyle.jsonlines import read_json
from anastyle.plan import Node
from anastyle.tracking import Study

Plans = dict[tuple[str, int], dict[str, Node]]
