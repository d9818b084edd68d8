"""The functions in the database, but for the one that carries out batches; see `Schema`."""

from __future__ import annotations

from string import Template
from typing import Final

#: Names of all functions.
FUNCTIONS: Final = (
    *("write", "register", "tick", "clean"),
    *("append", "publish", "put_back", "attempted", "wake"),
)

OTHERS: Final = Template("""
CREATE OR REPLACE FUNCTION ${base}_wake_$version(woken text[])
RETURNS void LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    said text := (SELECT string_agg(DISTINCT h, ',') FROM unnest(woken) AS item (h));
BEGIN
    -- A payload has less than 8000 bytes.
    IF said IS NOT NULL THEN
        PERFORM pg_notify('$channel', CASE WHEN length(said) > 7900 THEN '*' ELSE said END);
    END IF;
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
    -- To its old place; to the head if another is there.
    LOOP
        INSERT INTO ${base}_queue (hash, id, prefix, target, expires, payload)
            VALUES (hash_, place, prefix, name, deadline, payload) ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        place := (SELECT min(t.id) FROM ${base}_queue t WHERE t.hash = hash_) - 1;
    END LOOP;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_append_$version(
    hash_ bigint, prefix text, name text, deadline bigint, payload bytea, capacity bigint,
    now_ms bigint
) RETURNS boolean LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    -- False if the queue is full; without a capacity it never is.
    IF capacity IS NOT NULL AND capacity <= (SELECT count(*) FROM (SELECT FROM ${base}_queue t
        WHERE t.hash = hash_ AND t.expires > now_ms LIMIT capacity) AS counted)
    THEN
        RETURN false;
    END IF;
    INSERT INTO ${base}_queue (hash, prefix, target, expires, payload)
        VALUES (hash_, prefix, name, deadline, payload);
    RETURN true;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_publish_$version(
    hash_ bigint, prefix text, name text, deadline bigint, payload bytea, now_ms bigint,
    OUT full_ bigint, OUT members bigint, OUT woken text[]
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    member record;
BEGIN
    -- To the queues that are members of a group.
    full_ := 0;
    members := 0;
    woken := '{}';
    FOR member IN SELECT * FROM ${base}_member t WHERE t.hash = hash_ AND t.expires > now_ms LOOP
        members := members + 1;
        IF ${base}_append_$version(member.queue, prefix, member.target, deadline, payload,
            member.capacity, now_ms)
        THEN
            woken := woken || member.queue::text;
        ELSE
            full_ := full_ + 1;
        END IF;
    END LOOP;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_tick_$version(
    now_ms bigint, most bigint, OUT wait bigint, OUT run_out bigint
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    item record;
    woken text[] := '{}';
BEGIN
    $commit
    run_out := 0;
    IF EXISTS (SELECT FROM ${base}_outbox) THEN
        PERFORM pg_advisory_xact_lock($lock);
        FOR item IN
            WITH gone AS (DELETE FROM ${base}_outbox t WHERE t.id = ANY (ARRAY(
                SELECT s.id FROM ${base}_outbox s ORDER BY s.id LIMIT most)) RETURNING t.*)
            SELECT * FROM gone ORDER BY gone.id
        LOOP
            IF item.kind = 'q' THEN
                PERFORM ${base}_append_$version(item.hash, item.prefix, item.target, item.expires,
                    item.payload, NULL, now_ms);
            ELSE
                INSERT INTO ${base}_message (hash, target, expires, payload)
                    VALUES (item.hash, item.target, item.expires, item.payload);
                woken := woken || (SELECT p.woken FROM ${base}_publish_$version(item.hash,
                    item.prefix, item.target, item.expires, item.payload, now_ms) p);
            END IF;
            woken := woken || item.hash::text;
            -- As many again may follow.
            wait := 0;
        END LOOP;
    END IF;
    -- Waits for no other process, and so locks itself up with none.  What has expired is left to
    -- readers and cleaners.
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
        IF item.place IS NULL THEN
            PERFORM ${base}_append_$version(item.hash, item.prefix, item.target, item.expires,
                item.payload, NULL, now_ms);
        ELSE
            PERFORM ${base}_put_back_$version(item.hash, item.place, item.prefix, item.target,
                item.expires, item.payload);
        END IF;
        woken := woken || item.hash::text;
    END LOOP;
    wait := coalesce(wait, (SELECT min(t.due) - now_ms FROM ${base}_held t));
    PERFORM ${base}_wake_$version(woken);
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_register_$version(node text,
    OUT fence bigint, OUT number bigint, OUT firsts bigint[], OUT seconds bigint[],
    OUT incarnation text, OUT last bigint, OUT now_ms bigint, OUT shift bigint
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    INSERT INTO ${base}_meta DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT m.incarnation, m.shift INTO incarnation, shift FROM ${base}_meta m;
    now_ms := $clock + shift;
    -- Waits for a batch that an older connection of this process still carries out.
    INSERT INTO ${base}_node AS t VALUES (node, 1, now_ms, 0, '{}', '{}')
        ON CONFLICT (name) DO UPDATE SET epoch = t.epoch + 1, seen = excluded.seen
        RETURNING t.epoch, t.batch, t.firsts, t.seconds INTO fence, number, firsts, seconds;
    PERFORM pg_advisory_xact_lock($lock);
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO last
        FROM ${base}_message_id_seq s;
    now_ms := $clock + shift;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_clean_$version(now_ms bigint, most bigint, node_life bigint)
RETURNS bigint LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
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
""")
