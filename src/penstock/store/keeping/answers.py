"""Answers that are given again, encrypted by the gateway: who runs an attempt, how far it is, and how it ended.

A row goes from ``running`` to ``finished``, or to one of two ends after which a repeat runs again: ``failed``, for the
same charge, or ``over``, for a new one. All times are by the database's clock.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, delete, func, select, update

from penstock.store.database import Database
from penstock.store.engines.inserting import insert_into
from penstock.store.governance import answer_chunks, answers

# An owner that gave no sign of life for so long has died with its run.
SILENT_S = 5.0

_RUNNING, _FINISHED = "running", "finished"
_IDEMPOTENCY, _CACHE = "idempotency", "cache"
End = Literal["failed", "over"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request under an Idempotency-Key: the answer's id, what tells its body from others, who would run it, and for
    how many seconds the answer is given again."""

    id: bytes
    fingerprint: bytes
    app_id: str
    owner: str
    request_id: str
    window_s: float


class Attempt(msgspec.Struct, frozen=True):
    """One run of an answer, numbered from 1; whatever is written for it is dropped once another has taken over."""

    id: bytes
    number: int
    owner: str


class Found(msgspec.Struct, frozen=True):
    """The answer's state for who asks: ``mine`` to run now, ``running`` at an owner, ``finished`` with its sealed body,
    ``conflict`` with another request. Attempts of one ``created_s`` are one charge."""

    state: Literal["mine", "running", "finished", "conflict"]
    attempt: int
    created_s: float
    body: bytes | None = None


class Look(msgspec.Struct, frozen=True):
    """How far an answer is: its fingerprint, state, attempt, seconds since its owner's last sign of life, sealed chunks
    that were not seen yet, and the sealed body when it is finished."""

    fingerprint: bytes
    state: str
    attempt: int
    silent_s: float
    chunks: tuple[bytes, ...]
    body: bytes | None


class Beat(msgspec.Struct, frozen=True):
    """A sign of life of an attempt, with the number and the sealed bytes of what is new, if anything is."""

    attempt: Attempt
    number: int = 0
    chunk: bytes | None = None


class Kept(msgspec.Struct, frozen=True):
    """A cached answer, sealed, its age and how long it is still good, in seconds."""

    body: bytes
    age_s: float
    left_s: float


class AnswerStore:
    """Answers by id. Every method raises PenstockError store_unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def claim(self, ask: Ask) -> Found:
        """Takes the answer for the asker to run, unless it is there, or under way at an owner that lives."""
        return self._db.retrying(lambda: self._claim(ask))

    def look(self, id_: bytes, *, after: int = 0) -> Look | None:
        """What is known of an answer now; chunks from the number ``after`` on."""
        with self._db.read() as connection:
            row = connection.execute(select(answers).where(answers.c.id == id_)).one_or_none()
            if row is None:
                return None
            ours = (answer_chunks.c.answer_id == id_, answer_chunks.c.attempt == row.attempt)
            wanted = select(answer_chunks.c.body).where(*ours, answer_chunks.c.number >= after)
            chunks = connection.execute(wanted.order_by(answer_chunks.c.number)).scalars().all()
            silent_s = _now(connection) - row.alive_s
        return Look(row.fingerprint, row.state, row.attempt, silent_s, tuple(chunks), row.body)

    def follow(self, id_: bytes, attempt: int) -> None:
        """A client at another worker follows the attempt."""
        with self._db.write() as connection:
            ours = (answers.c.id == id_, answers.c.attempt == attempt)
            connection.execute(update(answers).where(*ours).values(followed_s=_now(connection)))

    def beat(self, beats: Sequence[Beat]) -> dict[bytes, float]:
        """Signs of life and new chunks, all or none. Of each attempt that is still its owner's, by the answer's id,
        for how many seconds no client at another worker has followed it."""
        with self._db.write() as connection:
            now = _now(connection)
            alone: dict[bytes, float] = {}
            # In one order, so that no two workers wait for each other's rows.
            for beat in sorted(beats, key=lambda beat: beat.attempt.id):
                alive = update(answers).where(*_ours(beat.attempt)).values(alive_s=now)
                followed_s = connection.execute(alive.returning(answers.c.followed_s)).scalar_one_or_none()
                if followed_s is None:
                    continue
                alone[beat.attempt.id] = now - followed_s
                _add_chunk(connection, beat)
        return alone

    def finish(self, attempt: Attempt, body: bytes) -> bool:
        """Keeps the whole answer in place of its chunks; False when the attempt is no longer its owner's."""
        with self._db.write() as connection:
            done = update(answers).where(*_ours(attempt)).values(state=_FINISHED, body=body)
            if connection.execute(done).rowcount == 0:
                return False
            connection.execute(delete(answer_chunks).where(answer_chunks.c.answer_id == attempt.id))
        return True

    def end(self, attempt: Attempt, state: End, last: Sequence[Beat] = ()) -> None:
        """The attempt ended without an answer to keep; ``last`` is what followers elsewhere have not seen of it."""
        with self._db.write() as connection:
            ended = update(answers).where(*_ours(attempt)).values(state=state)
            if connection.execute(ended).rowcount:
                for beat in last:
                    _add_chunk(connection, beat)

    def forget(self, attempt: Attempt) -> None:
        """The attempt ended before anything of it was given away: as if it had never been asked for."""
        with self._db.write() as connection:
            connection.execute(delete(answers).where(*_ours(attempt)))

    def keep(self, id_: bytes, *, app_id: str, body: bytes, ttl_s: float) -> None:
        """Keeps a cached answer in place of an older one."""
        with self._db.write() as connection:
            now = _now(connection)
            row = _row(id_, app_id=app_id, now=now, expires_s=now + ttl_s) | {
                "kind": _CACHE, "fingerprint": id_, "state": _FINISHED, "owner": "", "request_id": "", "body": body,
            }  # fmt: skip
            new = insert_into(answers, connection.dialect.name).values(**row)
            again = {name: row[name] for name in ("body", "created_s", "expires_s")}
            connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=again))

    def kept(self, id_: bytes) -> Kept | None:
        """A cached answer that is still good."""
        with self._db.read() as connection:
            now = _now(connection)
            ours = (answers.c.id == id_, answers.c.kind == _CACHE, answers.c.expires_s > now)
            row = connection.execute(select(answers).where(*ours)).one_or_none()
        return Kept(row.body, max(0.0, now - row.created_s), row.expires_s - now) if row is not None else None

    def prune(self, *, at_most: int = 1000) -> int:
        """Deletes answers that are no longer given again; how many."""
        with self._db.write() as connection:
            old = select(answers.c.id).where(answers.c.expires_s <= _now(connection)).limit(at_most)
            return connection.execute(delete(answers).where(answers.c.id.in_(old))).rowcount

    def _claim(self, ask: Ask) -> Found:
        with self._db.write() as connection:
            now = _now(connection)
            row = _row(ask.id, app_id=ask.app_id, now=now, expires_s=now + ask.window_s) | {
                "kind": _IDEMPOTENCY, "fingerprint": ask.fingerprint, "state": _RUNNING, "owner": ask.owner,
                "request_id": ask.request_id, "body": None,
            }  # fmt: skip
            new = (
                insert_into(answers, connection.dialect.name)
                .values(**row)
                .on_conflict_do_nothing()
                .returning(answers.c.id)
            )
            if connection.execute(new).all():
                return Found("mine", 1, now)
            found = connection.execute(select(answers).where(answers.c.id == ask.id).with_for_update()).one_or_none()
            if found is None:
                return self._claim(ask)  # it was deleted in between
            if (standing := _standing(found, ask, now)) is not None:
                return standing
            row["attempt"] = found.attempt + 1
            if _same_charge(found, ask, now):
                row |= {"created_s": found.created_s, "expires_s": found.expires_s}
            connection.execute(update(answers).where(answers.c.id == ask.id).values(**row))
            connection.execute(delete(answer_chunks).where(answer_chunks.c.answer_id == ask.id))
        return Found("mine", row["attempt"], row["created_s"])


def _standing(row: Row[Any], ask: Ask, now: float) -> Found | None:
    """What the asker finds; None when it is the asker's to run."""
    running = row.state == _RUNNING and now - row.alive_s <= SILENT_S
    if not running and (row.expires_s <= now or row.state in ("failed", "over")):
        return None
    if row.fingerprint != ask.fingerprint:
        return Found("conflict", row.attempt, row.created_s)
    if row.state == _FINISHED:
        return Found("finished", row.attempt, row.created_s, row.body)
    return Found("running", row.attempt, row.created_s) if running else None


def _same_charge(row: Row[Any], ask: Ask, now: float) -> bool:
    """Whether a new attempt is for the earlier one's charge: never for another body, or beyond the window."""
    return bool(row.state != "over" and row.fingerprint == ask.fingerprint and row.expires_s > now)


def _row(id_: bytes, *, app_id: str, now: float, expires_s: float) -> dict[str, Any]:
    times = {"alive_s": now, "followed_s": now, "created_s": now, "expires_s": expires_s}
    return {"id": id_, "app_id": app_id, "attempt": 1, **times}


def _ours(attempt: Attempt) -> tuple[Any, ...]:
    same = (answers.c.id == attempt.id, answers.c.attempt == attempt.number, answers.c.owner == attempt.owner)
    return (*same, answers.c.state == _RUNNING)


def _add_chunk(connection: Connection, beat: Beat) -> None:
    """Writes a chunk once, however often it is told: an answer of the database may be lost on its way."""
    if beat.chunk is None:
        return
    values = {
        "answer_id": beat.attempt.id, "attempt": beat.attempt.number, "number": beat.number, "body": beat.chunk
    }  # fmt: skip
    write = insert_into(answer_chunks, connection.dialect.name)
    connection.execute(write.values(**values).on_conflict_do_nothing())


def _now(connection: Connection) -> float:
    """Unix time by the database's clock: a file's database has its machine's."""
    if connection.dialect.name != "postgresql":
        return time.time()
    return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
