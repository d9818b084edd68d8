"""The function in the database that carries out a batch of a process; see `Schema`."""

from __future__ import annotations

from string import Template
from typing import Final

#: One batch of a process, in order; see `Call` for what each kind uses.
WRITE: Final = Template("""
CREATE OR REPLACE FUNCTION ${base}_write_$version(
    node text, fence bigint, number bigint, now_ms bigint, prefix text, most bigint,
    kinds text[], names text[], hashes bigint[], extras bigint[], numbers bigint[],
    deadlines bigint[], payloads bytea[],
    OUT firsts bigint[], OUT seconds bigint[], OUT tokens bigint[], OUT leased bytea[]
) LANGUAGE plpgsql AS $$body$$
#variable_conflict use_variable
DECLARE
    last bigint;
    free bigint;
    delayed bigint;
    published record;
    item record;
    woken text[] := '{}';
BEGIN
    $commit
    PERFORM 1 FROM ${base}_node t WHERE t.name = node AND t.epoch = fence FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this connection has been replaced' USING ERRCODE = 'CH001';
    END IF;
    IF kinds && '{g,n,q,w,j}' THEN
        -- Held until the commit: no id is taken before all lower ones can be seen, and counts are
        -- exact.
        PERFORM pg_advisory_xact_lock($lock);
    END IF;
    firsts := array_fill(0::bigint, ARRAY[cardinality(kinds)]);
    seconds := firsts;
    tokens := '{}'; leased := '{}';
    IF kinds && '{g,n}' THEN
        SELECT most - (s.last_value - m.horizon) INTO free
            FROM ${base}_message_id_seq s, ${base}_meta m;
    END IF;
    IF kinds <@ '{g}' AND free >= cardinality(kinds)
        AND NOT EXISTS (SELECT 1 FROM ${base}_member t WHERE t.hash = ANY (hashes))
    THEN
        INSERT INTO ${base}_message (hash, target, expires, payload)
            SELECT h, t, d, p FROM unnest(hashes, names, deadlines, payloads)
                WITH ORDINALITY AS item (h, t, d, p, position) ORDER BY position;
        SELECT array_agg(DISTINCT h::text) INTO woken FROM unnest(hashes) AS item (h);
    ELSE
        FOR i IN 1 .. cardinality(kinds) LOOP
            CASE kinds[i]
            WHEN 'g', 'n' THEN
                IF kinds[i] = 'n'
                    AND NOT EXISTS (SELECT 1 FROM ${base}_node t WHERE t.name = names[i])
                THEN
                    firsts[i] := -2;
                ELSIF free <= 0 THEN
                    firsts[i] := -1;
                ELSE
                    free := free - 1;
                    INSERT INTO ${base}_message (hash, target, expires, payload)
                        VALUES (hashes[i], names[i], deadlines[i], payloads[i]);
                    woken := woken || hashes[i]::text;
                END IF;
                IF kinds[i] = 'g' THEN
                    SELECT * INTO published FROM ${base}_publish_$version(hashes[i], prefix,
                        names[i], deadlines[i], payloads[i], now_ms);
                    IF firsts[i] = 0 THEN
                        firsts[i] := published.full_;
                    END IF;
                    seconds[i] := published.members;
                    woken := woken || published.woken;
                END IF;
            WHEN 'q' THEN
                IF ${base}_append_$version(hashes[i], prefix, names[i], deadlines[i], payloads[i],
                    numbers[i], now_ms)
                THEN
                    woken := woken || hashes[i]::text;
                ELSE
                    firsts[i] := -1;
                END IF;
            WHEN 'w' THEN
                IF delayed IS NULL THEN
                    SELECT count(*) INTO delayed FROM ${base}_held t
                        WHERE t.prefix = prefix AND t.place IS NULL;
                END IF;
                IF delayed >= numbers[i] THEN
                    firsts[i] := -1;
                ELSE
                    delayed := delayed + 1;
                    INSERT INTO ${base}_held (hash, prefix, target, due, expires, payload)
                        VALUES (hashes[i], prefix, names[i], extras[i], deadlines[i], payloads[i]);
                END IF;
            WHEN 'l' THEN
                -- Asked again, because the answer was lost, it gives the same.
                IF NOT EXISTS (SELECT FROM ${base}_held t
                    WHERE t.token >= extras[i] AND t.token < extras[i] + numbers[i])
                THEN
                    WITH gone AS (
                        DELETE FROM ${base}_queue t WHERE t.hash = hashes[i] AND t.id = ANY (ARRAY(
                            SELECT s.id FROM ${base}_queue s
                            WHERE s.hash = hashes[i] AND s.expires > now_ms
                            ORDER BY s.id LIMIT numbers[i] FOR UPDATE SKIP LOCKED))
                        RETURNING t.*
                    )
                    INSERT INTO ${base}_held
                        (token, hash, place, prefix, target, due, expires, payload)
                        SELECT extras[i] + row_number() OVER (ORDER BY gone.id) - 1, gone.hash,
                            gone.id, gone.prefix, gone.target, now_ms + deadlines[i], gone.expires,
                            ${base}_attempted_$version(gone.payload, 1) FROM gone;
                    CONTINUE WHEN NOT FOUND;
                END IF;
                SELECT tokens || array_agg(t.token), leased || array_agg(t.payload)
                    INTO tokens, leased FROM ${base}_held t
                    WHERE t.token >= extras[i] AND t.token < extras[i] + numbers[i];
            WHEN 'k' THEN
                DELETE FROM ${base}_held t WHERE t.token = extras[i];
                firsts[i] := CASE WHEN FOUND THEN 1 ELSE 0 END;
            WHEN 'e' THEN
                UPDATE ${base}_held t SET due = now_ms + numbers[i] WHERE t.token = extras[i];
                firsts[i] := CASE WHEN FOUND THEN 1 ELSE 0 END;
            WHEN 'r', 'u' THEN
                UPDATE ${base}_held t SET due = now_ms + numbers[i], token = NULL,
                    payload = CASE WHEN kinds[i] = 'r' THEN t.payload
                        ELSE ${base}_attempted_$version(t.payload, -1) END
                    WHERE t.token = extras[i] RETURNING t.* INTO item;
                IF FOUND THEN
                    firsts[i] := 1;
                    IF numbers[i] <= 0 THEN
                        DELETE FROM ${base}_held t WHERE t.id = item.id;
                        PERFORM ${base}_put_back_$version(item.hash, item.place, item.prefix,
                            item.target, item.expires, item.payload);
                        woken := woken || item.hash::text;
                    END IF;
                END IF;
            WHEN 'j' THEN
                SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO last
                    FROM ${base}_message_id_seq s;
                firsts[i] := last;
            WHEN 'a' THEN
                INSERT INTO ${base}_member AS t (hash, queue, prefix, target, capacity, expires)
                    VALUES (hashes[i], extras[i], prefix, names[i], numbers[i], deadlines[i])
                    ON CONFLICT (hash, queue)
                    DO UPDATE SET expires = excluded.expires, capacity = excluded.capacity;
            WHEN 'd' THEN
                DELETE FROM ${base}_member t WHERE t.hash = hashes[i] AND t.queue = extras[i];
            WHEN 'f' THEN
                DELETE FROM ${base}_queue t WHERE t.prefix = prefix;
                DELETE FROM ${base}_held t WHERE t.prefix = prefix;
                DELETE FROM ${base}_outbox t WHERE t.prefix = prefix;
                DELETE FROM ${base}_member t WHERE t.prefix = prefix;
            END CASE;
        END LOOP;
    END IF;
    UPDATE ${base}_node t SET seen = now_ms, batch = number, firsts = firsts, seconds = seconds
        WHERE t.name = node;
    PERFORM ${base}_wake_$version(woken);
END
$$body$$;
""")
