"""What Redis does in one step: Lua for Redis 5 and later, Valkey, KeyDB.

Deadlines are read from the envelopes themselves: eight octets after nineteen, milliseconds since
1970 (`channels.layers.envelope`).  Time is the server's.

A call that fills queues carries an index that rises with each such call of a process.  The last
one is kept per process, so that after a lost connection it can be asked which calls were carried
out; what an old connection still brings then, late, is refused by its lower index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from channels.layers.redis.line import Line

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

#: KEYS epoch lease sequence refused; ARGV word lease_ms index keep_ms epoch_ms
#: -> epoch, whether the lease was alive, last index carried out, refused indexes, now
OPEN: Final = (
    _NOW
    + """
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  epoch = ARGV[1] .. ':' .. now
  redis.call('SET', KEYS[1], epoch)
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local alive = redis.call('EXISTS', KEYS[2])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
local last = redis.call('HGET', KEYS[3], 'i') or '0'
redis.call('HSET', KEYS[3], 'i', ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[4])
local refused = redis.call('LRANGE', KEYS[4], 0, -1)
redis.call('DEL', KEYS[4])
return {epoch, alive, last, refused, tostring(now)}
"""
)

#: KEYS epoch lease inbox overflow sequence; ARGV lease_ms keep_ms epoch_ms
#: -> epoch, whether the lease was alive, now, groups that overflowed
RENEW: Final = (
    _NOW
    + """
local epoch = redis.call('GET', KEYS[1]) or ''
local alive = redis.call('EXISTS', KEYS[2])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[5], ARGV[2])
local full = {}
if redis.call('EXISTS', KEYS[4]) == 1 then
  full = redis.call('SMEMBERS', KEYS[4])
  redis.call('DEL', KEYS[4])
end
return {epoch, alive, tostring(now), full}
"""
)

#: KEYS lease inbox overflow sequence refused wake; ARGV base node group...
CLOSE: Final = """
for i = 3, #ARGV do redis.call('SREM', ARGV[1] .. 'g:' .. ARGV[i], ARGV[2]) end
for i = 1, #KEYS do redis.call('DEL', KEYS[i]) end
return 1
"""

#: ARGV base node life_ms group...
JOIN: Final = """
for i = 4, #ARGV do
  local group = ARGV[1] .. 'g:' .. ARGV[i]
  redis.call('SADD', group, ARGV[2])
  redis.call('PEXPIRE', group, ARGV[3])
end
return 1
"""

#: ARGV base node group...
LEAVE: Final = """
for i = 3, #ARGV do redis.call('SREM', ARGV[1] .. 'g:' .. ARGV[i], ARGV[2]) end
return 1
"""

#: KEYS inbox lease; ARGV envelope bound keep_ms -> 1, -1 full, -2 no such node
PUSH_NODE: Final = """
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

#: KEYS group group_queues sequence; ARGV base group envelope bound keep_ms life_ms index deferring
#: -> 0, or {queues that were full, queues, inboxes that were full, queue, capacity, ...}: with
#: `deferring` the queues are named for the caller to fill, since they are on other servers.
PUBLISH: Final = (
    _NOW
    + _APPEND
    + """
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

#: KEYS group_queues; ARGV queue value life_ms
ADD_QUEUE: Final = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""

ALL: Final = (OPEN, RENEW, CLOSE, JOIN, LEAVE, PUSH_NODE, PUSH, PUBLISH, ADD_QUEUE)
_DIGESTS: Final = {
    source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for source in ALL
}


def evaluation(source: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that runs one of these scripts, which `load` has brought to the server."""
    return ("EVALSHA", _DIGESTS[source], len(keys), *keys, *arguments)


async def load(line: Line) -> None:
    """Bring all scripts to the server.  One that loses them breaks the line, which loads again."""
    for source in ALL:
        await line.call_first("SCRIPT", "LOAD", source)
