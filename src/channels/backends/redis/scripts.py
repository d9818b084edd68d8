"""What Redis does in one step: Lua for Redis 5 and later, Valkey, KeyDB.

Each name below follows `<prefix>:`, or `<prefix>:{<tag>}:` where all keys of a shard must be in one
slot of a Redis Cluster; in the scripts that is `base`.

    al:<node>       lease of a live process: "<chain>:<connection>", the connection that began an
                    unbroken row of leases, and the present one; either begins with the kind of the
                    process's inbox
    in:<node>       its inbox: a stream of envelopes (kind s), or what it is subscribed to (p)
    ov:<node>       groups of which its inbox was too full to take an envelope
    ot:<node>       those of which it is being told
    sq:<session>    index of the last call of a process that filled a queue
    sf:<session>    list: indexes of those that found it full
    g:<group>       set: nodes with members of the group
    gx:<group>      hash: queue that is a member -> "<expires in ms>:<capacity>"
    q:<channel>     list: a queue of envelopes
    hd              sorted set: what is delayed, by its token and the ms when it is due
    hl              sorted set: what is on lease, or to be tried again later; the same
    hb              hash: token -> queue and envelope of both
    w:<channel>     sorted set: processes that wait for a queue, by when they began to

Deadlines are read from the envelopes themselves: eight octets after nineteen, milliseconds since
1970 (`channels.layers.envelope`); the attempts are the six upper bits of the second.  Time is the
server's.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from channels.backends.redis import lua

# The life of a process.

#: KEYS lease; ARGV connection base chain session lease_ms
#: -> whether the lease has run on since `chain` began, what names this run of the server (nothing
#: if its rules forbid to ask), last index carried out, refused indexes, now
OPEN: Final = (
    lua.NOW
    + """
local base, session = ARGV[2], ARGV[4]
local chain = string.match(redis.call('GET', KEYS[1]) or '', '^[^:]*')
local alive = (chain ~= '' and chain == ARGV[3]) and 1 or 0
if alive == 0 then chain = ARGV[1] end
redis.call('SET', KEYS[1], chain .. ':' .. ARGV[1], 'PX', ARGV[5])
local refused = redis.call('LRANGE', base .. 'sf:' .. session, 0, -1)
redis.call('DEL', base .. 'sf:' .. session)
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local last = redis.call('GET', base .. 'sq:' .. session) or '0'
return {alive, run, last, refused, tostring(now)}
"""
)

#: KEYS lease; ARGV token base node session lease_ms group_of_all knows
#: -> now, groups that overflowed (again, unless it `knows`, for an answer may be lost), processes.
#: A lease that ran out is not taken up again: by then the process may have been taken out of its
#: groups.  One process of all is looked at, whether it lives.  A subscription brings an empty
#: message, without which it is found dead.
RENEW: Final = (
    lua.FENCE
    + lua.NOW
    + lua.DELIVER
    + """
local node, session, all = ARGV[3], ARGV[4], base .. 'g:' .. ARGV[6]
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', base .. 'in:' .. node, 60000)
redis.call('PEXPIRE', base .. 'sq:' .. session, 60000)
local overflow, told = base .. 'ov:' .. node, base .. 'ot:' .. node
if ARGV[7] == '1' then redis.call('DEL', told) end
if redis.call('EXISTS', told) == 0 and redis.call('EXISTS', overflow) == 1 then
  redis.call('RENAME', overflow, told)
end
local full = redis.call('SMEMBERS', told)
local other = redis.call('SRANDMEMBER', all)
if other and redis.call('EXISTS', base .. 'al:' .. other) == 0 then
  redis.call('SREM', all, other)
end
if string.sub(ARGV[1], 1, 1) == 'p' then deliver(node, '', 0) end
return {tostring(now), full, redis.call('SCARD', all)}
"""
)

#: KEYS lease; ARGV token base node session
CLOSE: Final = (
    lua.FENCE
    + """
local node, session = ARGV[3], ARGV[4]
redis.call('DEL', KEYS[1], base .. 'in:' .. node, base .. 'ov:' .. node, base .. 'ot:' .. node)
redis.call('DEL', base .. 'sq:' .. session, base .. 'sf:' .. session)
"""
)

#: KEYS lease; ARGV token base node SADD/SREM group...
#: A group is remembered for a day, and joined again before that (`transport.REJOIN_SECONDS`).
JOIN: Final = (
    lua.FENCE
    + """
for i = 5, #ARGV do
  local group = base .. 'g:' .. ARGV[i]
  redis.call(ARGV[4], group, ARGV[3])
  redis.call('PEXPIRE', group, 86400000)
end
"""
)

# Groups and inboxes.

#: KEYS lease; ARGV token base node envelope bound -> 1, -1 full, -2 no such node
PUSH_NODE: Final = (
    lua.FENCE
    + lua.DELIVER
    + """
return deliver(ARGV[3], ARGV[4], tonumber(ARGV[5]))
"""
)

#: KEYS lease; ARGV token base group envelope bound
#: -> 0, or {inboxes that were full, queue, capacity, ...}: the group's queues are for the caller to
#: fill, since they may be on other servers.
PUBLISH: Final = (
    lua.FENCE
    + lua.NOW
    + lua.DELIVER
    + lua.EXPIRE
    + """
local group, bound = ARGV[3], tonumber(ARGV[5])
local found = {0}
for _, node in ipairs(redis.call('SMEMBERS', base .. 'g:' .. group)) do
  local taken = deliver(node, ARGV[4], bound)
  if taken == -2 then
    redis.call('SREM', base .. 'g:' .. group, node)
  elseif taken == -1 then
    found[1] = found[1] + 1
    redis.call('SADD', base .. 'ov:' .. node, group)
    redis.call('PEXPIRE', base .. 'ov:' .. node, 60000)
  end
end
local queues = redis.call('HGETALL', base .. 'gx:' .. group)
for i = 1, #queues, 2 do
  local expires, capacity = string.match(queues[i + 1], '^(%d+):(%d+)$')
  -- What expired unread has no reader: it leaves its groups, or it would fill for ever.
  if tonumber(expires) <= now or expire(base .. 'q:' .. queues[i]) then
    redis.call('HDEL', base .. 'gx:' .. group, queues[i])
  else
    found[#found + 1] = queues[i]
    found[#found + 1] = tonumber(capacity)
  end
end
return #found == 1 and found[1] == 0 and 0 or found
"""
)

#: KEYS lease; ARGV token base group queue expires_ms capacity
ADD_QUEUE: Final = (
    lua.FENCE
    + lua.NOW
    + lua.EXPIRE
    + """
local group = base .. 'gx:' .. ARGV[3]
-- Who joins lives: what expired before must not take it out of the group again.
expire(base .. 'q:' .. ARGV[4])
redis.call('HSET', group, ARGV[4], ARGV[5] .. ':' .. ARGV[6])
local life = math.max(1, ARGV[5] - now)
if redis.call('PTTL', group) < life then
  redis.call('PEXPIRE', group, string.format('%.0f', life))
end
"""
)

# Queues.

#: KEYS lease; ARGV token base queue envelope session index limit due_ms
#: -> 1, 0 full.  Without a due time the limit is the queue's capacity, else that of all that is
#: delayed.
PUSH: Final = (
    lua.FENCE
    + lua.PLACE
    + lua.HOLD
    + """
local name, data, session, index, limit = ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local due, queue, count = tonumber(ARGV[8]), base .. 'q:' .. ARGV[3], 0
if due > 0 then
  count = redis.call('ZCARD', base .. 'hd')
else
  expire(queue)
  count = redis.call('LLEN', queue)
end
if count >= limit then
  redis.call('RPUSH', base .. 'sf:' .. session, index)
  redis.call('LTRIM', base .. 'sf:' .. session, -1000, -1)
  redis.call('PEXPIRE', base .. 'sf:' .. session, 60000)
  return 0
end
if due > 0 then
  hold('hd', session .. ':' .. index, due, name, data)
else
  place(name, data, false)
end
redis.call('SET', base .. 'sq:' .. session, index, 'PX', 60000)
return 1
"""
)

#: KEYS lease; ARGV token base queue name count lease_ms node -> {{token, envelope, attempts}, ...}
#: The tokens are the name and a number.  The same name again, after its answer was lost, gives what
#: it gave, as far as it is there still.  If there is less than `count`, the process waits for the
#: queue from now on; if there is more, one that waits beside it is woken, since whom it was to
#: serve may have died.
LEASE: Final = (
    lua.FENCE
    + lua.PLACE
    + lua.HOLD
    + """
local name, most = ARGV[3], tonumber(ARGV[5])
local queue, waiting = base .. 'q:' .. name, base .. 'w:' .. name
local taken = {}
for i = 1, most do
  local body = redis.call('HGET', base .. 'hb', ARGV[4] .. i)
  if body then
    local data, count = attempted(string.sub(body, 3 + #name), 0)
    taken[#taken + 1] = {ARGV[4] .. i, data, count}
  end
end
if #taken > 0 then return taken end
expire(queue)
for i = 1, most do
  local data = redis.call('LPOP', queue)
  if not data then break end
  local attempt, count = attempted(data, 1)
  hold('hl', ARGV[4] .. i, now + ARGV[6], name, attempt)
  taken[i] = {ARGV[4] .. i, attempt, count}
end
if #taken < most then
  redis.call('ZADD', waiting, now, ARGV[7])
  redis.call('PEXPIRE', waiting, 60000)
else
  redis.call('ZREM', waiting, ARGV[7])
  if redis.call('EXISTS', queue) == 1 then wake(name) end
end
return taken
"""
)

#: KEYS lease; ARGV token base lease_token -> whether that lease was running
ACKNOWLEDGE: Final = (
    lua.FENCE
    + lua.HOLD
    + """
return let_go('hl', ARGV[3]) and 1 or 0
"""
)

#: KEYS lease; ARGV token base lease_token delay_ms counted -> as ACKNOWLEDGE
RELEASE: Final = (
    lua.FENCE
    + lua.PLACE
    + lua.HOLD
    + """
local name, data = let_go('hl', ARGV[3])
if not name then return 0 end
if ARGV[5] == '0' then data = attempted(data, -1) end
if tonumber(ARGV[4]) <= 0 then
  place(name, data, true)
else
  -- Another token: that of the lease is void.
  hold('hl', ARGV[3] .. 'r', now + ARGV[4], name, data)
end
return 1
"""
)

#: KEYS lease; ARGV token base lease_token lease_ms -> as ACKNOWLEDGE
EXTEND: Final = (
    lua.FENCE
    + lua.NOW
    + """
if not redis.call('ZSCORE', base .. 'hl', ARGV[3]) then return 0 end
redis.call('ZADD', base .. 'hl', string.format('%.0f', now + ARGV[4]), ARGV[3])
return 1
"""
)

#: KEYS lease; ARGV token base most -> ms until the next is due or -1, how many leases had run out
TICK: Final = (
    lua.FENCE
    + lua.PLACE
    + lua.HOLD
    + """
local run_out, wait = 0, -1
for _, set in ipairs({'hl', 'hd'}) do
  local due = redis.call('ZRANGEBYSCORE', base .. set, '-inf', now, 'LIMIT', 0, ARGV[3])
  for i = 1, #due do
    -- To the head go the later ones first.
    local token = due[set == 'hl' and #due + 1 - i or i]
    local name, data = let_go(set, token)
    if name then place(name, data, set == 'hl') end
    if set == 'hl' and string.sub(token, -1) ~= 'r' then run_out = run_out + 1 end
  end
  local first = redis.call('ZRANGE', base .. set, 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, first[2] - now)
    if wait < 0 or left < wait then wait = left end
  end
end
return {wait, run_out}
"""
)

ALL: Final = (
    *(OPEN, RENEW, CLOSE, JOIN, PUSH_NODE, PUBLISH, ADD_QUEUE),
    *(PUSH, LEASE, ACKNOWLEDGE, RELEASE, EXTEND, TICK),
)
_DIGESTS: Final = {
    source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for source in ALL
}


def evaluation(source: str, lease: str, *arguments: Any) -> tuple[Any, ...]:
    """The command that runs one of these scripts, once the server has it."""
    return ("EVALSHA", _DIGESTS[source], 1, lease, *arguments)
