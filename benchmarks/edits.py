"""Measure importing edits: seconds for a folder of one-edit files like ROME's, and for one file.

Records are synthetic: a request, likelihoods of both answers to a rewrite, two paraphrases and ten
neighbours, and generated text (1.5 kB each, 32 MB in total). A run over CounterFact makes tens of
thousands of such files. Each folder is first only read (a dry run in a separate registry) and then
imported into a new registry: read, identified, recorded in the ledger, projected into the embedded
graph, with all originals kept. The script prints the time per record, and the ratio of this time
for all records to that for a tenth of them; 1 means linear growth.

    python benchmarks/edits.py [--records 21186] [--forms folder file] [--limits]

With ``--limits`` the exit code is 1 if reading takes more than 1.5 ms for each record, or the whole
import more than 10 ms for each record, or if the growth is above 1.5.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FORMS = ("folder", "file")
ALLOWED_READING_MS = 1.5
ALLOWED_MS = 10.0
ALLOWED_GROWTH = 1.5


def record(number: int) -> dict[str, Any]:
    """ROME's record of one case."""
    likelihood = {"target_new": 0.001 * number, "target_true": 5.0}
    return {
        "case_id": number,
        "grouped_case_ids": [number],
        "num_edits": 1,
        "requested_rewrite": {
            "prompt": "{} plays the", "relation_id": "P413", "subject": f"Player {number}",
            "target_new": {"str": "basketball", "id": "Q5372"},
            "target_true": {"str": "football", "id": "Q41323"},
        },
        "time": 1.5,
        "post": {
            "rewrite_prompts_probs": [likelihood],
            "paraphrase_prompts_probs": [likelihood] * 2,
            "neighborhood_prompts_probs": [likelihood] * 10,
            "ngram_entropy": 6.25,
            "reference_score": 0.3,
            "text": ["He plays the game. " * 28],
        },
    }  # fmt: skip


def write(folder: Path, n_records: int, form: str) -> None:
    """Write this many records, each into a separate file or all into one."""
    folder.mkdir()
    if form == "file":
        text = json.dumps([record(number) for number in range(n_records)])
        (folder / "ROME_results.json").write_text(text)
        return
    for number in range(n_records):
        (folder / f"case_{number}.json").write_text(json.dumps(record(number)))


def seconds(folder: Path, n_records: int, *, dry_run: bool) -> float:
    """Import a folder into a fresh registry.

    Raises:
        SystemExit: Not all of it could be imported.
    """
    from ingest.exchange.importing import FileOutcome, import_files
    from registry import Registry

    said = {"model": "gpt2-xl", "method": "ROME"}
    with (
        tempfile.TemporaryDirectory() as home,
        Registry.init(Path(home) / ".circuits") as registry,
    ):
        start = time.perf_counter()
        with registry.projecting_later():
            reports = list(import_files(registry, [folder], said, dry_run=dry_run))
        took = time.perf_counter() - start
    wanted = FileOutcome.READABLE if dry_run else FileOutcome.STORED
    if {report.outcome for report in reports} != {wanted}:
        raise SystemExit(f"{folder.name} was not imported: {reports[0].notes}")
    if sum(report.edits for report in reports) != n_records:
        raise SystemExit(f"{folder.name}: not every record became an edit")
    return took


def measure(form: str, n_records: int, within: Path) -> tuple[float, float, float]:
    """Milliseconds per record to read and to import, and the growth of the time to import."""
    each = []
    for n in (max(1, n_records // 10), n_records):
        folder = within / f"{form}-{n}"
        write(folder, n, form)
        each.append([1_000 * seconds(folder, n, dry_run=dry) / n for dry in (True, False)])
    (_, few), (reading, whole) = each
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"{form:<8} {n_records:>7,} records {n_bytes / 1e6:>7.1f} MB"
        f" {reading:>7.2f} ms each read {whole:>7.2f} ms each imported"
        f" ({whole * n_records / 1_000:,.1f} s in all) {whole / few:>6.2f} times a tenth's"
    )
    return reading, whole, whole / few


def main() -> int:
    """Make the records, import them, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=21_186)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--limits", action="store_true", help="exit code 1 if over the limits")
    given = parser.parse_args()
    over = False
    with tempfile.TemporaryDirectory() as folder:
        for form in given.forms:
            reading, whole, growth = measure(form, given.records, Path(folder))
            over |= reading > ALLOWED_READING_MS or whole > ALLOWED_MS or growth > ALLOWED_GROWTH
    return int(over and given.limits)


if __name__ == "__main__":
    sys.exit(main())
