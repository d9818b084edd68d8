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

from channels.backends.redis import queue_scripts
from channels.backends.redis.line import STALE, CommandConnection
from channels.backends.redis.queue_scripts import APPEND, NOW

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
    NOW
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
    NOW
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

#: KEYS lease inbox overflow sequence refused; ARGV token
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

#: KEYS group group_queues sequence lease; ARGV base group envelope bound keep_ms life_ms index
#: deferring token
#: -> 0, or {queues that were full, queues, inboxes that were full, queue, capacity, ...}: with
#: `deferring` the queues are named for the caller to fill, since they are on other servers.
PUBLISH: Final = (
    NOW
    + _FENCE
    + APPEND
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
    if not append(base, queues[i], data, tonumber(capacity), tonumber(ARGV[6])) then
      full = full + 1
    end
  end
end
if full == 0 and missed == 0 and #deferred == 0 then return 0 end
return {full, members, missed, unpack(deferred)}
"""
)

#: KEYS group_queues; ARGV queue value life_ms base
ADD_QUEUE: Final = (
    NOW
    + APPEND
    + """
-- Who joins lives: what expired before must not take it out of the group again.
expire(ARGV[4] .. 'q:' .. ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
)

ALL: Final = (
    OPEN,
    RENEW,
    CLOSE,
    JOIN,
    LEAVE,
    NODES,
    PUSH_NODE,
    PUBLISH,
    ADD_QUEUE,
    *queue_scripts.ALL,
)
_DIGESTS: Final = {
    source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for source in ALL
}


def evaluation(source: str, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
    """The command that runs one of these scripts, which `load` has brought to the server."""
    return ("EVALSHA", _DIGESTS[source], len(keys), *keys, *arguments)


async def load(line: CommandConnection) -> None:
    """Bring all scripts to the server.  One that loses them breaks the line, which loads again."""
    # In one round trip: a process is away for as long as this takes.
    loads = [line.call_first("SCRIPT", "LOAD", source) for source in ALL]
    await asyncio.gather(*loads)
