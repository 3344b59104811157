"""Build sdxl_mel/assets/score_bank.json.gz from the scores that music21 ships (the extra `scores`).

    python tools/build_score_bank.py [--out FILE]

Bach chorales in four parts, and tunes without harmony from Ryan's Mammoth Collection, O'Neill's Music of Ireland and
Aird's Selection. Times are in ticks of 1/24 quarter note, pitches are MIDI numbers. The same music21 makes the same
bytes.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from music21 import converter, corpus, key, metadata, stream

TICKS = 24
MIN_QUARTERS, MAX_QUARTERS = 24, 96
CHORALES, RYAN, ONEILL, AIRD = 160, 70, 60, 50
DEFAULT_OUT = Path(__file__).parents[1] / "sdxl_mel" / "assets" / "score_bank.json.gz"

Piece = dict[str, object]


def main() -> None:
    """Write the score bank and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    out = parser.parse_args().out
    found = [
        *_some(_chorales(), CHORALES),
        *_some(_ryan(), RYAN),
        *_some(_books("oneills1850", "O'Neill's Music of Ireland (1903)", 4), ONEILL),
        *_some(_books("airdsAirs", "Aird's Selection of Airs, vol. 1 (1782)", 1), AIRD),
    ]
    pieces = list({piece["id"]: piece for piece in found}.values())
    text = json.dumps({"format": 1, "ticks": TICKS, "pieces": pieces}, separators=(",", ":"), ensure_ascii=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(pieces)} pieces, {out.stat().st_size} bytes")
    for name in sorted({str(piece["transcriber"]) for piece in pieces}):
        print(" ", sum(piece["transcriber"] == name for piece in pieces), name)


def _some(pieces: Iterator[Piece | None], wanted: int) -> Iterator[Piece]:
    kept = (piece for piece in pieces if piece is not None)
    for _, piece in zip(range(wanted), kept):
        yield piece


def _chorales() -> Iterator[Piece | None]:
    for path in sorted(corpus.getComposer("bach"), key=lambda path: path.name):
        score = corpus.parse(path)
        if len(score.parts) != 4:
            continue
        tonality = score.analyze("key")
        if tonality.correlationCoefficient < 0.85:
            continue
        about = {"style": "chorale", "rhythm": "chorale", "mode": tonality.mode, "source": "J. S. Bach, chorales"}
        title = path.name.removesuffix(".mxl").upper()
        yield _piece(f"bach-{path.stem}", score, {"title": title, **about, "transcriber": "the music21 corpus"})


def _ryan() -> Iterator[Piece | None]:
    paths = sorted(corpus.getComposer("ryansMammoth"), key=lambda path: path.name)
    for path in paths[:: len(paths) // (RYAN * 2)]:
        yield _tune(f"ryan-{path.stem}", converter.parse(path), path.read_text(), "Ryan's Mammoth Collection (1883)")


def _books(folder: str, source: str, count: int) -> Iterator[Piece | None]:
    paths = sorted(corpus.getComposer(folder), key=lambda path: path.name)[:count]
    for path in paths:
        headers = _tune_headers(path.read_text(errors="replace"))
        book = converter.parse(path)
        for score in list(book.scores)[:: 3 if count == 1 else 2]:
            number = str(score.metadata.number)
            yield _tune(f"{folder}-{path.stem}-{number}", score, headers.get(number, ""), source)


def _tune_headers(text: str) -> dict[str, str]:
    tunes = ("\nX:" + part for part in ("\n" + text).split("\nX:")[1:])
    return {tune[3:].split("\n", 1)[0].strip().lstrip("0"): tune for tune in tunes}


def _tune(identifier: str, score: stream.Score, abc: str, source: str) -> Piece | None:
    signatures = list(score.recurse().getElementsByClass(key.Key))
    if len(score.parts) != 1 or len(signatures) != 1 or signatures[0].mode not in ("major", "minor"):
        return None
    title = score.metadata.title if isinstance(score.metadata, metadata.Metadata) else None
    about = {
        "title": " ".join((title or identifier).split()),
        "style": "folk",
        "rhythm": _rhythm(abc),
        "mode": signatures[0].mode,
        "source": source,
        "transcriber": _transcriber(abc),
    }
    return _piece(identifier, score, about)


def _rhythm(abc: str) -> str:
    found = next((line[2:].strip().strip('"').lower() for line in abc.splitlines() if line.startswith("R:")), "")
    return next((word for word in ("reel", "hornpipe", "jig", "strathspey", "march", "waltz") if word in found), "tune")


def _transcriber(abc: str) -> str:
    lines = [line[2:].strip().strip('"') for line in abc.splitlines() if line.startswith("Z:")]
    named = [line for line in lines if line and not line.lower().startswith("abc")]
    line = named[0] if named else "not named"
    for prefix in ("Transcribed by ", "transcribed by ", "Contributed by ", "by "):
        line = line.removeprefix(prefix)
    return _name_only(line)


def _name_only(line: str) -> str:
    """Return the name at the start of a credit, without date, address or site; of a bare address what is before @."""
    words = [word for word in line.split() if not word.isdigit()]
    name = takewhile(
        lambda word: not any(mark in word[:-1] for mark in "@:<*/.") and word[0] not in "<*0123456789", words
    )
    return " ".join(name).strip(" ,") or words[0].split("@")[0]


def _piece(identifier: str, score: stream.Score, about: dict[str, str]) -> Piece | None:
    parts = [_notes(part) for part in score.parts]
    if any(len(part) < 12 for part in parts):
        return None
    quarters = max(part[-1][0] + part[-1][1] for part in parts) / TICKS
    if not MIN_QUARTERS <= quarters <= MAX_QUARTERS:
        return None
    return {"id": identifier, **about, "parts": parts}


def _notes(part: stream.Part) -> list[tuple[int, int, int]]:
    notes = []
    for note in part.flatten().stripTies().notes:
        onset, duration = round(float(note.offset) * TICKS), round(float(note.quarterLength) * TICKS)
        if duration > 0 and note.pitches:
            notes.append((onset, duration, max(pitch.midi for pitch in note.pitches)))
    return sorted(notes)


if __name__ == "__main__":
    main()
