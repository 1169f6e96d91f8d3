"""Tables of docs/reliability.md."""

from __future__ import annotations

from results import read, table

KINDS = {  # of the matrix: the fault, what is promised
    "flips": (
        "one flipped bit in any file of a bench",
        "`verify` says it; the next command gives the same results or refuses with a sentence",
    ),
    "kills": (
        "SIGKILL, SIGTERM or SIGINT at a random moment of init, train, generate, evaluate, prepare, evaluate --samples",
        "the same command again finishes with the same results",
    ),
    "resumes": (
        "the same signals to a training that writes a checkpoint after every step",
        "the same command again finishes with the same weights",
    ),
    "full_disks": (
        "a disk with 100 bytes to 500 kB left, in the same commands",
        "one sentence, exit code 1; with room again, the same results",
    ),
    "little_memory": (
        "1 to 200 MB of address space more than after the imports, in the same commands",
        "no traceback of mribench; with memory again, the same results",
    ),
    "bad_volumes": (
        "one damaged or strange file among four volumes, in 23 ways",
        "refused by its name, or read as it was; no other entrant is touched",
    ),
    "hostile_texts": (
        "markup, formulas, TeX commands, control characters in eight fields",
        "they stay text in HTML, CSV, TeX, Markdown and on the terminal",
    ),
    "races": (
        "two commands at once on one bench, all pairs of nine",
        "both end with exit code 0, 1 or 2; the bench can be completed with the same results",
    ),
    "two_inits": ("two `init` with different protocols at once", "exactly one succeeds"),
    "adoptions": (
        "`mribench adopt`: a signal at a random moment, a limit of file sizes, or one bad file of four, by turns",
        "the same command again gives the same samples and control; a bad file is refused by its name or read as it "
        "was, and nothing is made",
    ),
    "streams": (
        "closed, full or broken stdout or stderr; no home and no temporary folder",
        "no traceback; the same command again gives the same results",
    ),
    "bundles": (
        "one flipped bit in a bundle, half of them in the zip around its members",
        "refused with a sentence that names the file",
    ),
}


def faults() -> str:
    """What was promised for every kind of fault, how often it was tried, and how often it held."""
    rows = []
    for kind, result in read("faults")["matrix"].items():
        tried, broken = result["trials"], result["not as promised"]
        rows.append([*KINDS[kind], str(tried), str(tried - broken)])
    return table(["fault", "promised", "tried", "survived"], rows)


def fault_outcomes() -> str:
    """How the trials of every kind ended."""
    rows = []
    for kind, result in read("faults")["matrix"].items():
        words: dict[str, int] = {}
        for outcomes in result["outcomes"].values():
            for word, count in outcomes.items():
                words[word] = words.get(word, 0) + count
        text = ", ".join(f"{word} {count}" for word, count in sorted(words.items()))
        rows.append(
            [KINDS[kind][0].partition(",")[0], text, str(result["seed"]), f"{result['seconds']:.0f} s"]
        )
    return table(["fault", "outcomes", "seed", "took"], rows)
