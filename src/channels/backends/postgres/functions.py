"""The functions in the database, but for the one that carries out batches; see `Schema`."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import Final

#: Names of all functions -> the version with which they came.
FUNCTIONS: Final[Mapping[str, int]] = {
    "write": 1,
    "wake": 1,
    "register": 1,
    "clean": 1,
    "send": 1,
    "attempted": 2,
    "put_back": 2,
    "tick": 2,
}

OTHERS: Final = Template("""
CREATE OR REPLACE FUNCTION ${base}_wake_$version(woken text[])
RETURNS void LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    said text := (SELECT string_agg(DISTINCT h, ',') FROM unnest(woken) AS item (h));
BEGIN
    -- A payload has less than 8000 bytes.
    PERFORM pg_notify('$channel', CASE WHEN length(said) > 7900 THEN '*' ELSE said END);
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_attempted_$version(payload bytea, more bigint)
RETURNS bytea LANGUAGE sql IMMUTABLE AS $$body$$
    -- An envelope has its number of attempts in the six upper bits of its second octet.
    SELECT CASE WHEN octet_length(payload) < 27 THEN payload ELSE set_byte(payload, 1,
        (get_byte(payload, 1) & 3)
        | (greatest(0, least(63, (get_byte(payload, 1) >> 2) + more))::integer << 2)) END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_put_back_$version(
    hash_ bigint, place bigint, prefix text, name text, deadline bigint, payload bytea
) RETURNS void LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    -- To its old place, or if it has none, or another is there, to the head.
    LOOP
        IF place IS NULL THEN
            place := coalesce(
                (SELECT min(t.id) FROM ${base}_queue t WHERE t.hash = hash_), 0) - 1;
        END IF;
        INSERT INTO ${base}_queue (hash, id, prefix, target, expires, payload)
            VALUES (hash_, place, prefix, name, deadline, payload) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        place := NULL;
    END LOOP;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_tick_$version(most bigint, OUT wait bigint, OUT run_out bigint)
LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    now_ms bigint := $now;
    item record;
    woken text[] := '{}';
BEGIN
    $commit
    run_out := 0;
    -- Waits for no other process, and so locks itself up with none.
    FOR item IN
        WITH gone AS (
            DELETE FROM ${base}_held t WHERE t.id = ANY (ARRAY(
                SELECT s.id FROM ${base}_held s WHERE s.due <= now_ms
                ORDER BY s.due, s.id LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING t.*
        )
        SELECT gone.* FROM gone ORDER BY gone.due, gone.id
    LOOP
        IF item.token IS NOT NULL THEN
            run_out := run_out + 1;
        END IF;
        CONTINUE WHEN item.expires <= now_ms;
        IF item.place IS NULL THEN
            INSERT INTO ${base}_queue (hash, prefix, target, expires, payload)
                VALUES (item.hash, item.prefix, item.target, item.expires, item.payload);
        ELSE
            PERFORM ${base}_put_back_$version(item.hash, item.place, item.prefix, item.target,
                item.expires, item.payload);
        END IF;
        woken := woken || item.hash::text;
    END LOOP;
    SELECT min(t.due) - now_ms INTO wait FROM ${base}_held t;
    IF cardinality(woken) > 0 THEN
        PERFORM ${base}_wake_$version(woken);
    END IF;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_register_$version(node text,
    OUT fence bigint, OUT number bigint, OUT firsts bigint[], OUT seconds bigint[],
    OUT pulled_by bigint[], OUT pulled_id bigint[], OUT pulled bytea[],
    OUT incarnation text, OUT horizon bigint, OUT last bigint, OUT now_ms bigint
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    INSERT INTO ${base}_meta DEFAULT VALUES ON CONFLICT DO NOTHING;
    now_ms := $now;
    -- Waits for a batch that an older connection of this process still carries out.
    INSERT INTO ${base}_node AS t VALUES (node, 1, now_ms, 0, '{}', '{}', '{}', '{}', '{}')
        ON CONFLICT (name) DO UPDATE SET epoch = t.epoch + 1, seen = excluded.seen
        RETURNING t.epoch, t.batch, t.firsts, t.seconds, t.pulled_by, t.pulled_id, t.pulled
        INTO fence, number, firsts, seconds, pulled_by, pulled_id, pulled;
    PERFORM pg_advisory_xact_lock($lock);
    SELECT m.incarnation, m.horizon INTO incarnation, horizon FROM ${base}_meta m;
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO last
        FROM ${base}_message_id_seq s;
    now_ms := $now;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_clean_$version(most bigint, node_life bigint)
RETURNS bigint LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    now_ms bigint := $now;
    highest bigint;
    counted bigint;
    more bigint;
BEGIN
    $commit
    IF NOT pg_try_advisory_xact_lock($lock + 1) THEN
        RETURN 0;
    END IF;
    WITH gone AS (
        DELETE FROM ${base}_message WHERE id = ANY (ARRAY(
            SELECT id FROM ${base}_message WHERE expires <= now_ms
            ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED)) RETURNING id
    )
    SELECT max(id), count(*) INTO highest, counted FROM gone;
    IF highest IS NOT NULL THEN
        UPDATE ${base}_meta SET horizon = greatest(horizon, highest);
    END IF;
    WITH gone AS (
        DELETE FROM ${base}_queue WHERE (hash, id) IN (
            SELECT hash, id FROM ${base}_queue WHERE expires <= now_ms
            ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED) RETURNING 1
    )
    SELECT count(*) INTO more FROM gone;
    DELETE FROM ${base}_member WHERE expires <= now_ms;
    DELETE FROM ${base}_node WHERE seen <= now_ms - node_life;
    RETURN greatest(counted, more);
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_send_$version(
    kind text, name text, hash_ bigint, prefix text, capacity bigint, deadline bigint,
    payload bytea, due bigint, bound bigint
) RETURNS text LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    now_ms bigint := $now;
    member record;
    filled bigint;
    woken text := hash_::text;
BEGIN
    -- In a transaction of the caller's: takes no lock, so its ids may be seen late.
    IF due > 0 THEN
        SELECT count(*) INTO filled FROM ${base}_held t
            WHERE t.prefix = prefix AND t.place IS NULL;
        IF filled >= bound THEN
            RETURN NULL;
        END IF;
        INSERT INTO ${base}_held (hash, prefix, target, due, expires, payload)
            VALUES (hash_, prefix, name, due, deadline, payload);
        RETURN '';
    END IF;
    IF kind <> 'q' THEN
        INSERT INTO ${base}_message (hash, target, expires, payload)
            VALUES (hash_, name, deadline, payload);
    END IF;
    FOR member IN
        SELECT hash_ AS queue, name AS target, capacity AS most WHERE kind = 'q'
        UNION ALL
        SELECT t.queue, t.target, t.capacity FROM ${base}_member t
            WHERE kind = 'g' AND t.hash = hash_ AND t.expires > now_ms
    LOOP
        SELECT count(*) INTO filled FROM (SELECT 1 FROM ${base}_queue t
            WHERE t.hash = member.queue AND t.expires > now_ms LIMIT member.most) AS counted;
        IF filled < member.most THEN
            INSERT INTO ${base}_queue (hash, prefix, target, expires, payload)
                VALUES (member.queue, prefix, member.target, deadline, payload);
            woken := woken || ',' || member.queue;
        ELSIF kind = 'q' THEN
            RETURN NULL;
        END IF;
    END LOOP;
    RETURN woken;
END
$$body$$;
""")
