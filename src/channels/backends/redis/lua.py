"""What the scripts of `channels.backends.redis.scripts` are composed of: functions in Lua."""

from __future__ import annotations

from typing import Final

#: How a script refuses a command of a process that Redis has forgotten.
STALE: Final = "STALELEASE"

#: KEYS[1] is the process's lease and ARGV[1] what the connection that asks wrote there.  If that is
#: not what it says, Redis has forgotten the process (its lease ran out, FLUSHALL), or a newer
#: connection has taken over and this command had been left in an old connection's socket.  STALE
#: breaks the connection: the next one joins the process's groups again.
FENCE: Final = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('{STALE} the lease of this process is not what it was')
end
local base = ARGV[2]
"""

NOW: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

#: `deliver` brings something to a process: 1, -1 its inbox is full, -2 it is gone.
DELIVER: Final = """
local function deliver(node, data, bound)
  local lease = redis.call('GET', base .. 'al:' .. node)
  local inbox = base .. 'in:' .. node
  if not lease then
    redis.call('DEL', inbox)
    return -2
  end
  if string.sub(lease, 1, 1) == 'p' then
    redis.call('PUBLISH', inbox, data)
    return 1
  end
  local length = redis.call('XLEN', inbox)
  if length >= bound then return -1 end
  redis.call('XADD', inbox, '*', 'e', data)
  if length == 0 then redis.call('PEXPIRE', inbox, 60000) end
  return 1
end
"""

#: `expire` drops what has expired from a queue's head and says whether there was any.
EXPIRE: Final = """
local function deadline_of(data)
  return #data >= 27 and struct.unpack('>I8', data, 20) or 0
end
local function expire(queue)
  local expired = false
  local first = redis.call('LINDEX', queue, 0)
  while first do
    local deadline = deadline_of(first)
    if deadline == 0 or deadline > now then break end
    redis.call('LPOP', queue)
    expired = true
    first = redis.call('LINDEX', queue, 0)
  end
  return expired
end
"""

#: `place` puts an envelope at a queue's end or head, and `wake` tells the process that began to
#: wait for it last: by a zero octet and the queue's name in its inbox.  `attempted` counts up or
#: down.
PLACE: Final = (
    NOW
    + DELIVER
    + EXPIRE
    + """
local function wake(name)
  repeat
    local node = redis.call('ZPOPMAX', base .. 'w:' .. name)[1]
  until not node or deliver(node, '\\0' .. name, math.huge) == 1
end
local function place(name, data, to_head)
  local queue = base .. 'q:' .. name
  redis.call(to_head and 'LPUSH' or 'RPUSH', queue, data)
  local deadline = deadline_of(data)
  -- Ten years, if it does not expire.
  local life = 315360000000
  if deadline > 0 then life = math.max(1000, deadline - now + 60000) end
  if redis.call('PTTL', queue) < life then
    redis.call('PEXPIRE', queue, string.format('%.0f', life))
  end
  wake(name)
end
local function attempted(data, by)
  if #data < 27 then return data, 0 end
  local count = math.max(0, math.min(63, math.floor(string.byte(data, 2) / 4) + by))
  return string.sub(data, 1, 1) .. string.char(count * 4) .. string.sub(data, 3), count
end
"""
)

#: `hold` keeps an envelope back from its queue, `let_go` gives both back and forgets them.
HOLD: Final = """
local function hold(set, token, due, name, data)
  redis.call('ZADD', base .. set, string.format('%.0f', due), token)
  redis.call('HSET', base .. 'hb', token, struct.pack('>I2', #name) .. name .. data)
end
local function let_go(set, token)
  if redis.call('ZREM', base .. set, token) == 0 then return end
  local body = redis.call('HGET', base .. 'hb', token)
  redis.call('HDEL', base .. 'hb', token)
  if not body then return end
  local length = struct.unpack('>I2', body)
  return string.sub(body, 3, 2 + length), string.sub(body, 3 + length)
end
"""
