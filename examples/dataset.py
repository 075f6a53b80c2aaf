"""A data set of your own in one file: clicks in a CSV file with the columns user, item, time and title."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from genrec_bench.contracts import Interactions
from genrec_bench.core.registry import datasets
from genrec_bench.datasets.base import Dataset, data_folder, number_items


@datasets.register("clicks")
@dataclass(frozen=True)
class Clicks(Dataset):
    """clicks.csv in the data folder; every user needs three clicks or more."""

    default_tokenizer = "rq_kmeans"
    how_to_get = "write clicks.csv with the columns user, item, time, title"

    def location(self, data_dir: Path | None) -> str:
        return f"{data_dir or 'DATA_DIR'}/clicks.csv"

    def missing_files(self, data_dir: Path | None) -> list[str]:
        return [] if data_dir and (data_dir / "clicks.csv").is_file() else ["clicks.csv"]

    def load(self, data_dir: Path | None) -> Interactions:
        with open(data_folder(self.name, data_dir, "clicks.csv"), newline="", encoding="utf-8") as file:
            clicks = sorted(csv.DictReader(file), key=lambda click: float(click["time"]))
        titles = {click["item"]: click["title"] for click in clicks}
        users, items = defaultdict(list), sorted(titles)
        for click in clicks:
            users[click["user"]].append(click["item"])
        return Interactions(self.name, tuple(users), tuple(items), number_items(users.values(), items),
                            tuple(titles[item] for item in items), source="clicks.csv")
