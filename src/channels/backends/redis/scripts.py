"""What Redis does in one step: Lua for Redis 5 and later, Valkey, KeyDB.

Deadlines are read from the envelopes themselves: eight octets after nineteen, milliseconds since
1970 (`channels.layers.envelope`).  Time is the server's.

A call that fills queues carries an index that rises with each such call of a process.  The last
one is kept per process, so that after a lost connection it can be asked which calls were carried
out; what an old connection still brings then, late, is refused by its lower index.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from channels.backends.redis.line import STALE, Line

_NOW: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

#: `expire` drops what has expired from a queue's head and says whether there was any; `append` says
#: whether there was room.
_APPEND: Final = """
local function expire(queue)
  local deserted = false
  local first = redis.call('LINDEX', queue, 0)
  while first do
    local deadline = #first >= 27 and struct.unpack('>I8', first, 20) or 0
    if deadline == 0 or deadline > now then break end
    redis.call('LPOP', queue)
    deserted = true
    first = redis.call('LINDEX', queue, 0)
  end
  return deserted
end
local function append(queue, data, capacity, life)
  if redis.call('LLEN', queue) >= capacity then return false end
  redis.call('RPUSH', queue, data)
  if redis.call('PTTL', queue) < life then redis.call('PEXPIRE', queue, life) end
  return true
end
"""

#: A connection's commands hold only while the process's lease says so.  Else
#: Redis has forgotten the process (its lease ran out, FLUSHALL), or a newer connection has taken
#: over and this command had been left in an old connection's socket.  The answer begins with STALE,
#: which breaks the connection: the next one joins the process's groups again.
_FENCE: Final = f"""
local function is_stale(lease, token)
  return redis.call('GET', lease) ~= token
end
local stale = redis.error_reply('{STALE} the lease of this process is not what it was')
"""

#: KEYS epoch lease sequence refused; ARGV word lease_ms index keep_ms epoch_ms connection chain
#: -> epoch, whether the lease has run on since `chain` began, last index carried out, refused
#: indexes, now.  A lease says "<chain>:<connection>": the connection that began an unbroken row of
#: leases, and the present one.  Where an answer is lost, the chain still tells the next connection.
OPEN: Final = (
    _NOW
    + """
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1] .. ':' .. now
  redis.call('SET', KEYS[1], epoch)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local chain = string.match(redis.call('GET', KEYS[2]) or '', '^[^:]*')
local alive = (chain ~= '' and chain == ARGV[7]) and 1 or 0
if alive == 0 then chain = ARGV[6] end
redis.call('SET', KEYS[2], chain .. ':' .. ARGV[6], 'PX', ARGV[2])
local last = redis.call('HGET', KEYS[3], 'i') or '0'
if tonumber(ARGV[3]) > tonumber(last) then redis.call('HSET', KEYS[3], 'i', ARGV[3]) end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
local refused = redis.call('LRANGE', KEYS[4], 0, -1)
redis.call('DEL', KEYS[4])
return {epoch, alive, last, refused, tostring(now)}
"""
)

#: KEYS epoch lease inbox overflow sequence; ARGV lease_ms keep_ms epoch_ms token
#: -> epoch, now, groups that overflowed.  A lease that ran out is not taken up again: by then
#: the process may have been taken out of its groups.
RENEW: Final = (
    _NOW
    + _FENCE
    + """
if is_stale(KEYS[2], ARGV[4]) then return stale end
local epoch = redis.call('GET', KEYS[1]) or ''
redis.call('PEXPIRE', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[5], ARGV[2])
local full = {}
if redis.call('EXISTS', KEYS[4]) == 1 then
  full = redis.call('SMEMBERS', KEYS[4])
  redis.call('DEL', KEYS[4])
end
return {epoch, tostring(now), full}
"""
)

#: KEYS lease inbox overflow sequence refused wake; ARGV token
CLOSE: Final = (
    _FENCE
    + """
if is_stale(KEYS[1], ARGV[1]) then return stale end
for i = 1, #KEYS do redis.call('DEL', KEYS[i]) end
return 1
"""
)

#: KEYS lease; ARGV token base node life_ms group...
JOIN: Final = (
    _FENCE
    + """
if is_stale(KEYS[1], ARGV[1]) then return stale end
for i = 5, #ARGV do
  local group = ARGV[2] .. 'g:' .. ARGV[i]
  redis.call('SADD', group, ARGV[3])
  redis.call('PEXPIRE', group, ARGV[4])
end
return 1
"""
)

#: KEYS lease; ARGV token base node group...
LEAVE: Final = (
    _FENCE
    + """
if is_stale(KEYS[1], ARGV[1]) then return stale end
for i = 4, #ARGV do redis.call('SREM', ARGV[2] .. 'g:' .. ARGV[i], ARGV[3]) end
return 1
"""
)

#: KEYS group; ARGV base -> how many nodes of the group are alive
NODES: Final = """
local alive = 0
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. 'al:' .. node) == 1 then
    alive = alive + 1
  else
    redis.call('SREM', KEYS[1], node)
  end
end
return alive
"""

#: KEYS inbox its_lease lease; ARGV envelope bound keep_ms token -> 1, -1 full, -2 no such node
PUSH_NODE: Final = (
    _FENCE
    + """
if is_stale(KEYS[3], ARGV[4]) then return stale end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[1])
  return -2
end
local length = redis.call('XLEN', KEYS[1])
if length >= tonumber(ARGV[2]) then return -1 end
redis.call('XADD', KEYS[1], '*', 'e', ARGV[1])
if length == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)

#: KEYS queue sequence refused; ARGV envelope capacity life_ms index keep_ms
#: -> 1, -1 full, -3 carried out before, or from a connection that was given up
PUSH: Final = (
    _NOW
    + _APPEND
    + """
local last = redis.call('HGET', KEYS[2], 'i')
if last and tonumber(ARGV[4]) <= tonumber(last) then return -3 end
expire(KEYS[1])
if not append(KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])) then
  redis.call('RPUSH', KEYS[3], ARGV[4])
  redis.call('LTRIM', KEYS[3], -1000, -1)
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  return -1
end
redis.call('HSET', KEYS[2], 'i', ARGV[4])
return 1
"""
)

#: KEYS group group_queues sequence lease; ARGV base group envelope bound keep_ms life_ms index
#: deferring token
#: -> 0, or {queues that were full, queues, inboxes that were full, queue, capacity, ...}: with
#: `deferring` the queues are named for the caller to fill, since they are on other servers.
PUBLISH: Final = (
    _NOW
    + _FENCE
    + _APPEND
    + """
if is_stale(KEYS[4], ARGV[9]) then return stale end
local base, group, data = ARGV[1], ARGV[2], ARGV[3]
local bound, keep = tonumber(ARGV[4]), ARGV[5]
local deferring = ARGV[8] == '1'
local queues = redis.call('HGETALL', KEYS[2])
if #queues > 0 and not deferring then
  local last = redis.call('HGET', KEYS[3], 'i')
  if last and tonumber(ARGV[7]) <= tonumber(last) then return 0 end
  redis.call('HSET', KEYS[3], 'i', ARGV[7])
end
local nodes = redis.call('SMEMBERS', KEYS[1])
local missed = 0
for i = 1, #nodes do
  local node = nodes[i]
  local inbox = base .. 'in:' .. node
  if redis.call('EXISTS', base .. 'al:' .. node) == 0 then
    redis.call('SREM', KEYS[1], node)
    redis.call('DEL', inbox)
  else
    local length = redis.call('XLEN', inbox)
    if length >= bound then
      missed = missed + 1
      redis.call('SADD', base .. 'ov:' .. node, group)
      redis.call('PEXPIRE', base .. 'ov:' .. node, keep)
    else
      redis.call('XADD', inbox, '*', 'e', data)
      if length == 0 then redis.call('PEXPIRE', inbox, keep) end
    end
  end
end
local full, members, deferred = 0, 0, {}
for i = 1, #queues, 2 do
  local expires, capacity = string.match(queues[i + 1], '^(%d+):(%d+)$')
  local queue = base .. 'q:' .. queues[i]
  -- What expired unread has no reader: it leaves its groups, or it would fill for ever.
  if tonumber(expires) <= now or (not deferring and expire(queue)) then
    redis.call('HDEL', KEYS[2], queues[i])
  elseif deferring then
    deferred[#deferred + 1] = queues[i]
    deferred[#deferred + 1] = capacity
  else
    members = members + 1
    if not append(queue, data, tonumber(capacity), tonumber(ARGV[6])) then full = full + 1 end
  end
end
if full == 0 and missed == 0 and #deferred == 0 then return 0 end
return {full, members, missed, unpack(deferred)}
"""
)

#: KEYS group_queues; ARGV queue value life_ms base
ADD_QUEUE: Final = (
    _NOW
    + _APPEND
    + """
-- Who joins lives: what expired before must not take it out of the group again.
expire(ARGV[4] .. 'q:' .. ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)

# What is held back from its queue.  "held" among KEYS are the first three: the sorted sets of what
# is delayed and of what is on lease, and the hash of their bodies.  A body is a queue's name and an
# envelope; the attempts are in the envelope, the six upper bits of its second octet.

#: `put` places a body at a queue's end or head, `attempted` counts up or down.
_HELD: Final = """
local function put(base, body, to_head)
  local length = struct.unpack('>I2', body)
  local queue = base .. 'q:' .. string.sub(body, 3, 2 + length)
  local data = string.sub(body, 3 + length)
  redis.call(to_head and 'LPUSH' or 'RPUSH', queue, data)
  local deadline = #data >= 27 and struct.unpack('>I8', data, 20) or 0
  local life = 315360000000
  if deadline > 0 then life = math.max(1000, deadline - now + 60000) end
  if redis.call('PTTL', queue) < life then
    redis.call('PEXPIRE', queue, string.format('%.0f', life))
  end
end
local function attempted(data, by)
  local flags = string.byte(data, 2)
  local low = flags % 4
  local count = math.max(0, math.min(63, (flags - low) / 4 + by))
  return string.sub(data, 1, 1) .. string.char(low + count * 4) .. string.sub(data, 3), count
end
"""

#: KEYS held sequence refused; ARGV token queue envelope due_ms bound index keep_ms
#: -> 1, -1 too many, -3 as for PUSH
PUSH_LATER: Final = """
local last = redis.call('HGET', KEYS[4], 'i')
if last and tonumber(ARGV[6]) <= tonumber(last) then return -3 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then
  redis.call('RPUSH', KEYS[5], ARGV[6])
  redis.call('LTRIM', KEYS[5], -1000, -1)
  redis.call('PEXPIRE', KEYS[5], ARGV[7])
  return -1
end
redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], struct.pack('>I2', #ARGV[2]) .. ARGV[2] .. ARGV[3])
redis.call('HSET', KEYS[4], 'i', ARGV[6])
return 1
"""

#: KEYS held queue; ARGV token queue count lease_ms -> {token, envelope, attempts, ...}
#: The same token again, after its answer was lost, gives what it gave, as far as it is there still.
LEASE: Final = (
    _NOW
    + _APPEND
    + _HELD
    + """
local taken = {}
for i = 1, tonumber(ARGV[3]) do
  local token = ARGV[1] .. i
  local body = redis.call('HGET', KEYS[3], token)
  if body then
    local data = string.sub(body, 3 + #ARGV[2])
    local _, count = attempted(data, 0)
    taken[#taken + 1] = {token, data, count}
  end
end
if #taken > 0 then return taken end
expire(KEYS[4])
local head = struct.pack('>I2', #ARGV[2]) .. ARGV[2]
for i = 1, tonumber(ARGV[3]) do
  local data = redis.call('LPOP', KEYS[4])
  if not data then break end
  local count = 0
  if #data >= 27 then data, count = attempted(data, 1) end
  local token = ARGV[1] .. i
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[4]), token)
  redis.call('HSET', KEYS[3], token, head .. data)
  taken[i] = {token, data, count}
end
return taken
"""
)

#: KEYS held; ARGV token -> whether the lease was running
ACKNOWLEDGE: Final = """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[3], ARGV[1])
return 1
"""

#: KEYS held; ARGV token base delay_ms counted -> whether the lease was running
RELEASE: Final = (
    _NOW
    + _HELD
    + """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 0 end
local body = redis.call('HGET', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
if not body then return 0 end
local start = 3 + struct.unpack('>I2', body)
if ARGV[4] == '0' and #body >= start + 26 then
  body = string.sub(body, 1, start - 1) .. attempted(string.sub(body, start), -1)
end
if tonumber(ARGV[3]) <= 0 then
  put(ARGV[2], body, true)
else
  -- Another token: that of the lease is void.
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[3]), ARGV[1] .. 'r')
  redis.call('HSET', KEYS[3], ARGV[1] .. 'r', body)
end
return 1
"""
)

#: KEYS held; ARGV token lease_ms -> whether the lease was running
EXTEND: Final = (
    _NOW
    + """
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2]), ARGV[1])
return 1
"""
)

#: KEYS held; ARGV base most -> ms until the next is due or -1, how many leases had run out
TICK: Final = (
    _NOW
    + _HELD
    + """
local run_out = 0
for set = 2, 1, -1 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[set], '-inf', now, 'LIMIT', 0, ARGV[2])
  -- To the head go the later ones first.
  for i = (set == 2 and #due or 1), (set == 2 and 1 or #due), (set == 2 and -1 or 1) do
    local body = redis.call('HGET', KEYS[3], due[i])
    redis.call('ZREM', KEYS[set], due[i])
    redis.call('HDEL', KEYS[3], due[i])
    if body then put(ARGV[1], body, set == 2) end
    if set == 2 and string.sub(due[i], -1) ~= 'r' then run_out = run_out + 1 end
  end
end
local wait = -1
for set = 1, 2 do
  local first = redis.call('ZRANGE', KEYS[set], 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, first[2] - now)
    if wait < 0 or left < wait then wait = left end
  end
end
return {wait, run_out}
"""
)

#: KEYS queue mark; ARGV life_ms keep_ms envelope...
#: The mark is this return's own: asked for again after a lost answer, it is not done twice.
GIVE_BACK: Final = """
if not redis.call('SET', KEYS[2], '1', 'PX', ARGV[2], 'NX') then return 0 end
for i = #ARGV, 3, -1 do redis.call('LPUSH', KEYS[1], ARGV[i]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""

ALL: Final = (
    OPEN,
    RENEW,
    CLOSE,
    JOIN,
    LEAVE,
    NODES,
    PUSH_NODE,
    PUSH,
    PUBLISH,
    ADD_QUEUE,
    GIVE_BACK,
)
HELD: Final = (PUSH_LATER, LEASE, ACKNOWLEDGE, RELEASE, EXTEND, TICK)
_DIGESTS: Final = {
    source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    for source in (*ALL, *HELD)
}


def evaluation(source: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that runs one of these scripts, which `load` has brought to the server."""
    return ("EVALSHA", _DIGESTS[source], len(keys), *keys, *arguments)


async def load(line: Line) -> None:
    """Bring all scripts to the server.  One that loses them breaks the line, which loads again."""
    # In one round trip: a process is away for as long as this takes.
    loads = [line.call_first("SCRIPT", "LOAD", source) for source in (*ALL, *HELD)]
    await asyncio.gather(*loads)
