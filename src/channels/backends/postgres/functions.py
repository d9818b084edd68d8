"""The functions in the database; see `Schema`."""

from __future__ import annotations

from typing import Final

FUNCTIONS: Final = """
CREATE OR REPLACE FUNCTION ${base}_wake_$version(woken text[])
RETURNS void LANGUAGE plpgsql AS $$body$$
DECLARE
    said text := (SELECT string_agg(DISTINCT h, ',') FROM unnest(woken) AS item (h));
BEGIN
    -- A payload has less than 8000 bytes.
    IF said IS NOT NULL THEN
        PERFORM pg_notify('$channel', CASE WHEN length(said) > 7900 THEN '*' ELSE said END);
    END IF;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_carry_out_$version(
    kind text, hash bigint, extra bigint, number bigint, deadline bigint, payload bytea,
    prefix text, now_ms bigint, OUT first bigint, OUT second bigint, OUT woken text[]
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    member record;
    pushed record;
BEGIN
    -- One call; see `Call` for what each kind uses.  What it means for the log is not done here.
    first := 0; second := 0; woken := '{}';
    CASE kind
    WHEN 'g' THEN
        FOR member IN SELECT * FROM ${base}_member t WHERE t.hash = hash AND t.expires > now_ms
        LOOP
            second := second + 1;
            SELECT * INTO pushed FROM ${base}_carry_out_$version(
                'q', member.queue, 0, member.capacity, deadline, payload, prefix, now_ms);
            first := first - pushed.first;
            woken := woken || pushed.woken;
        END LOOP;
    WHEN 'q' THEN
        IF number > (SELECT count(*) FROM (SELECT FROM ${base}_queue t
            WHERE t.hash = hash AND t.due = 0 AND t.expires > now_ms LIMIT number) AS counted)
        THEN
            INSERT INTO ${base}_queue (hash, prefix, expires, payload)
                VALUES (hash, prefix, deadline, payload);
            woken := ARRAY[hash::text];
        ELSE
            first := -1;
        END IF;
    WHEN 'w' THEN
        INSERT INTO ${base}_queue (hash, prefix, due, expires, payload)
            VALUES (hash, prefix, extra, deadline, payload);
    WHEN 'l' THEN
        -- Asked again, because the answer was lost, it gives the same.
        IF NOT EXISTS (SELECT FROM ${base}_queue t WHERE t.lease > 0 AND t.lease = extra) THEN
            UPDATE ${base}_queue t
                SET lease = extra, due = now_ms + deadline, attempts = t.attempts + 1
                WHERE t.id = ANY (ARRAY(SELECT s.id FROM ${base}_queue s
                    WHERE s.hash = hash AND s.due = 0 AND s.expires > now_ms
                    ORDER BY s.id LIMIT number FOR UPDATE SKIP LOCKED));
        END IF;
    WHEN 'k' THEN
        DELETE FROM ${base}_queue t WHERE t.id = hash AND t.lease = extra;
        first := FOUND::integer;
    WHEN 'e' THEN
        UPDATE ${base}_queue t SET due = now_ms + number WHERE t.id = hash AND t.lease = extra;
        first := FOUND::integer;
    WHEN 'r', 'u' THEN
        UPDATE ${base}_queue t SET lease = -1,
            due = CASE WHEN number > 0 THEN now_ms + number ELSE 0 END,
            attempts = t.attempts - (kind = 'u')::integer
            WHERE t.id = hash AND t.lease = extra
            RETURNING CASE WHEN number > 0 THEN '{}' ELSE ARRAY[t.hash::text] END INTO woken;
        first := FOUND::integer;
    WHEN 'b' THEN
        SELECT count(*), coalesce(min(t.expires), 0) INTO first, second FROM ${base}_queue t
            WHERE t.hash = hash AND t.due = 0 AND t.expires > now_ms;
    WHEN 'a' THEN
        INSERT INTO ${base}_member AS t (hash, queue, prefix, capacity, expires)
            VALUES (hash, extra, prefix, number, deadline)
            ON CONFLICT ON CONSTRAINT ${bare}_member_pkey
            DO UPDATE SET expires = excluded.expires, capacity = excluded.capacity;
    WHEN 'd' THEN
        DELETE FROM ${base}_member t WHERE t.hash = hash AND t.queue = extra;
    WHEN 'f' THEN
        DELETE FROM ${base}_queue t WHERE t.prefix = prefix;
        DELETE FROM ${base}_member t WHERE t.prefix = prefix;
    ELSE
        NULL;
    END CASE;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_atomic_$version(
    kind text, hash bigint, extra bigint, number bigint, deadline bigint, payload bytea,
    prefix text, now_ms bigint, OUT first bigint, OUT woken text[]
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    -- A call that sends, as part of the caller's transaction.
    IF kind = 'w' AND number <= (SELECT count(*) FROM ${base}_queue t
        WHERE t.prefix = prefix AND t.lease = 0 AND t.due > 0)
    THEN
        first := -1;
        RETURN;
    END IF;
    SELECT t.first, t.woken INTO first, woken FROM ${base}_carry_out_$version(
        kind, hash, extra, number, deadline, payload, prefix, now_ms) t;
    IF kind IN ('g', 'n') THEN
        INSERT INTO ${base}_outbox (hash, expires, payload) VALUES (hash, deadline, payload);
    END IF;
    IF kind <> 'q' THEN
        woken := woken || '$due'::text;
    END IF;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_write_$version(
    node bigint, fence bigint, number bigint, now_ms bigint, prefix text, most bigint,
    kinds text[], hashes bigint[], extras bigint[], numbers bigint[], deadlines bigint[],
    payloads bytea[], OUT firsts bigint[], OUT seconds bigint[],
    OUT leases bigint[], OUT ids bigint[], OUT attempts bigint[], OUT leased bytea[]
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    last bigint;
    bound bigint;
    delayed bigint;
    has_members boolean;
    item record;
    done record;
    woken text[];
BEGIN
    $commit
    PERFORM FROM ${base}_node t WHERE t.hash = node AND t.epoch = fence FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this connection has been replaced' USING ERRCODE = 'CH001';
    END IF;
    IF kinds && '{g,n,q,w,j}' THEN
        -- Held until the commit: no id is taken before all lower ones can be seen, and counts are
        -- exact.
        PERFORM pg_advisory_xact_lock($lock);
    END IF;
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END, m.horizon + most INTO last, bound
        FROM ${base}_message_id_seq s, ${base}_meta m;
    has_members := kinds && '{a}'
        OR EXISTS (SELECT FROM ${base}_member t WHERE t.hash = ANY (hashes));
    firsts := array_fill(0::bigint, ARRAY[cardinality(kinds)]);
    seconds := firsts;
    FOR item IN SELECT * FROM unnest(kinds, hashes, extras, numbers, deadlines, payloads)
        WITH ORDINALITY AS t (kind, hash, extra, number, deadline, payload, place) ORDER BY place
    LOOP
        IF item.kind = 'n' THEN
            IF NOT EXISTS (SELECT FROM ${base}_node t WHERE t.hash = item.hash) THEN
                firsts[item.place] := -2;
                CONTINUE;
            END IF;
        ELSIF item.kind = 'j' THEN
            firsts[item.place] := last;
        ELSIF item.kind = 'w' THEN
            delayed := coalesce(delayed, (SELECT count(*) FROM ${base}_queue t
                WHERE t.prefix = prefix AND t.lease = 0 AND t.due > 0)) + 1;
            IF delayed > item.number THEN
                firsts[item.place] := -1;
                CONTINUE;
            END IF;
        END IF;
        IF item.kind NOT IN ('g', 'n', 'j') OR item.kind = 'g' AND has_members THEN
            SELECT * INTO done FROM ${base}_carry_out_$version(item.kind, item.hash, item.extra,
                item.number, item.deadline, item.payload, prefix, now_ms);
            firsts[item.place] := done.first;
            seconds[item.place] := done.second;
            woken := woken || done.woken;
        END IF;
        IF item.kind IN ('g', 'n') THEN
            IF last < bound THEN
                last := last + 1;
            ELSE
                firsts[item.place] := -1;
            END IF;
        END IF;
    END LOOP;
    WITH logged AS (
        INSERT INTO ${base}_message (hash, expires, payload)
            SELECT t.hash, t.expires, t.payload
            FROM unnest(kinds, firsts, hashes, deadlines, payloads)
                WITH ORDINALITY AS t (kind, first, hash, expires, payload, place)
            WHERE t.kind IN ('g', 'n') AND t.first >= 0 ORDER BY t.place RETURNING hash
    )
    SELECT woken || array_agg(DISTINCT t.hash::text) INTO woken FROM logged t;
    IF kinds && '{l}' THEN
        SELECT array_agg(t.lease), array_agg(t.id), array_agg(t.attempts), array_agg(t.payload)
            INTO leases, ids, attempts, leased
            FROM (SELECT * FROM ${base}_queue q WHERE q.lease = ANY (extras) AND q.lease > 0
                ORDER BY q.id) t;
    END IF;
    UPDATE ${base}_node t SET seen = now_ms, batch = number, firsts = firsts, seconds = seconds
        WHERE t.hash = node;
    PERFORM ${base}_wake_$version(woken);
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_register_$version(node bigint,
    OUT fence bigint, OUT number bigint, OUT firsts bigint[], OUT seconds bigint[],
    OUT incarnation text, OUT last bigint, OUT now_ms bigint, OUT shift bigint
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
BEGIN
    INSERT INTO ${base}_meta DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT m.incarnation, m.shift INTO incarnation, shift FROM ${base}_meta m;
    -- Waits for a batch that an older connection of this process still carries out.
    INSERT INTO ${base}_node AS t VALUES (node, 1, $clock + shift, 0, '{}', '{}')
        ON CONFLICT ON CONSTRAINT ${bare}_node_pkey
        DO UPDATE SET epoch = t.epoch + 1, seen = excluded.seen
        RETURNING t.epoch, t.batch, t.firsts, t.seconds INTO fence, number, firsts, seconds;
    PERFORM pg_advisory_xact_lock($lock);
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO last
        FROM ${base}_message_id_seq s;
    now_ms := $clock + shift;
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_tick_$version(
    now_ms bigint, most bigint, OUT wait bigint, OUT run_out bigint
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    item record;
    woken text[];
BEGIN
    $commit
    run_out := 0;
    IF EXISTS (SELECT FROM ${base}_outbox) THEN
        PERFORM pg_advisory_xact_lock($lock);
        WITH gone AS (DELETE FROM ${base}_outbox t WHERE t.id = ANY (ARRAY(
            SELECT s.id FROM ${base}_outbox s ORDER BY s.id LIMIT most)) RETURNING t.*
        ), logged AS (INSERT INTO ${base}_message (hash, expires, payload)
            SELECT t.hash, t.expires, t.payload FROM gone t ORDER BY t.id RETURNING hash)
        SELECT array_agg(t.hash::text) INTO woken FROM logged t;
        -- As many again may follow.
        wait := 0;
    END IF;
    -- Waits for no other process, and so locks itself up with none.  What has expired is left to
    -- readers and cleaners.
    FOR item IN SELECT t.id, t.hash, t.lease FROM ${base}_queue t WHERE t.due BETWEEN 1 AND now_ms
        ORDER BY t.due, t.id LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        -- What was never in its queue comes to the end.
        UPDATE ${base}_queue t SET due = 0, lease = -1,
            id = CASE WHEN item.lease = 0 THEN nextval('${base}_queue_id_seq') ELSE item.id END
            WHERE t.id = item.id;
        run_out := run_out + (item.lease > 0)::integer;
        woken := woken || item.hash::text;
    END LOOP;
    wait := coalesce(wait, (SELECT min(t.due) - now_ms FROM ${base}_queue t WHERE t.due > 0));
    PERFORM ${base}_wake_$version(woken);
END
$$body$$;
CREATE OR REPLACE FUNCTION ${base}_clean_$version(now_ms bigint, node_life bigint, most bigint)
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
    DELETE FROM ${base}_queue WHERE id = ANY (ARRAY(
        SELECT id FROM ${base}_queue WHERE expires <= now_ms AND due = 0
        ORDER BY expires LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS more = ROW_COUNT;
    DELETE FROM ${base}_member WHERE expires <= now_ms;
    DELETE FROM ${base}_node WHERE seen <= now_ms - node_life;
    RETURN greatest(counted, more);
END
$$body$$;
"""
