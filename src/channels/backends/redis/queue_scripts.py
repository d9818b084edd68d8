"""What Redis does in one step with queues, and with what is held back from them; see `scripts`."""

from __future__ import annotations

from typing import Final

NOW: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
"""

#: `wake` tells the process that began to wait for a queue last that there is something in it: by a
#: word in its inbox (s) or over its subscription (p), a zero octet and the queue's name.
WAKE: Final = """
local function wake(base, queue)
  while true do
    local who = redis.call('ZPOPMAX', base .. 'w:' .. queue)[1]
    if not who then return end
    local node = string.sub(who, 2)
    if string.sub(who, 1, 1) == 'p' then
      local heard = redis.call('PUBLISH', base .. 'n:' .. node, '\\0' .. queue)
      -- A node of a cluster counts its own subscribers only.
      if heard > 0 or string.find(base, '{', 1, true) then return end
    elseif redis.call('EXISTS', base .. 'al:' .. node) == 1 then
      redis.call('XADD', base .. 'in:' .. node, '*', 'e', '\\0' .. queue)
      redis.call('PEXPIRE', base .. 'in:' .. node, 60000)
      return
    end
  end
end
"""

#: `expire` drops what has expired from a queue's head and says whether there was any; `append` says
#: whether there was room.
APPEND: Final = (
    WAKE
    + """
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
local function append(base, name, data, capacity, life)
  local queue = base .. 'q:' .. name
  if redis.call('LLEN', queue) >= capacity then return false end
  redis.call('RPUSH', queue, data)
  if redis.call('PTTL', queue) < life then redis.call('PEXPIRE', queue, life) end
  wake(base, name)
  return true
end
"""
)

#: KEYS queue sequence refused; ARGV envelope capacity life_ms index keep_ms base name
#: -> 1, -1 full, -3 carried out before, or from a connection that was given up
PUSH: Final = (
    NOW
    + APPEND
    + """
local last = redis.call('HGET', KEYS[2], 'i')
if last and tonumber(ARGV[4]) <= tonumber(last) then return -3 end
expire(KEYS[1])
if not append(ARGV[6], ARGV[7], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])) then
  redis.call('RPUSH', KEYS[3], ARGV[4])
  redis.call('LTRIM', KEYS[3], -1000, -1)
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  return -1
end
redis.call('HSET', KEYS[2], 'i', ARGV[4])
return 1
"""
)

# What is held back from its queue.  "held" among KEYS are the first three: the sorted sets of what
# is delayed and of what is on lease, and the hash of their bodies.  A body is a queue's name and an
# envelope; the attempts are in the envelope, the six upper bits of its second octet.

#: `put` places a body at a queue's end or head (with `WAKE`), `attempted` counts up or down.
_HELD: Final = """
local function put(base, body, to_head)
  local length = struct.unpack('>I2', body)
  local name = string.sub(body, 3, 2 + length)
  local queue = base .. 'q:' .. name
  local data = string.sub(body, 3 + length)
  redis.call(to_head and 'LPUSH' or 'RPUSH', queue, data)
  local deadline = #data >= 27 and struct.unpack('>I8', data, 20) or 0
  local life = 315360000000
  if deadline > 0 then life = math.max(1000, deadline - now + 60000) end
  if redis.call('PTTL', queue) < life then
    redis.call('PEXPIRE', queue, string.format('%.0f', life))
  end
  wake(base, name)
end
local function attempted(data, by)
  local count = math.max(0, math.min(63, math.floor(string.byte(data, 2) / 4) + by))
  return string.sub(data, 1, 1) .. string.char(count * 4) .. string.sub(data, 3), count
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

#: KEYS held queue; ARGV token queue count lease_ms base who -> {{token, envelope, attempts}, ...}
#: The same token again, after its answer was lost, gives what it gave, as far as it is there still.
#: If there is less than `count`, `who` waits for the queue from now on; if there is more, who waits
#: beside it is woken, since whom it was to serve may have died.
LEASE: Final = (
    NOW
    + APPEND
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
local waiting = ARGV[5] .. 'w:' .. ARGV[2]
if #taken < tonumber(ARGV[3]) then
  redis.call('ZADD', waiting, now, ARGV[6])
  redis.call('PEXPIRE', waiting, 60000)
else
  redis.call('ZREM', waiting, ARGV[6])
  if redis.call('EXISTS', KEYS[4]) == 1 then wake(ARGV[5], ARGV[2]) end
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
    NOW
    + WAKE
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
    NOW
    + """
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2]), ARGV[1])
return 1
"""
)

#: KEYS held; ARGV base most -> ms until the next is due or -1, how many leases had run out
TICK: Final = (
    NOW
    + WAKE
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

ALL: Final = (PUSH, PUSH_LATER, LEASE, ACKNOWLEDGE, RELEASE, EXTEND, TICK)
