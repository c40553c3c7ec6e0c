-- Events that were in work when a process of a server died.
--
-- A connection that breaks is no death by itself: whoever runs the servers notes each death in a file, and only a break
-- about then counts. The first time an event is only suspected: others were perhaps in work beside it, or somebody
-- killed the process. It may come again, but one suspect at a time, so that the next death names its cause. The second
-- time it is set aside for a while. An answer clears it.

local suspects = {}

local MOST = 10000 -- suspects that are kept
local FORGET = 120 -- seconds after which a request that never ended (its client went) no longer counts
local TOGETHER = 2 -- seconds within which a broken connection belongs to a death
local BREAKS = 8 -- of one event that wait to be explained

local known, count = {}, 0 -- by fingerprint: { deaths, aside, busy, ends, breaks = { at }, counted }
local in_work = {} -- by request: { fingerprint, since }
local working = 0

local function forget_old(now)
  for request, work in pairs(in_work) do
    if now - work.since > FORGET then
      in_work[request] = nil
      working = working - 1
    end
  end
  for fingerprint, suspect in pairs(known) do
    if now > suspect.ends then
      known[fingerprint] = nil
      count = count - 1
    end
  end
end

-- The times of the deaths that were noted (s since 1970).
local function deaths(path)
  local found, file = {}, io.open(path, "rb")
  if file then
    for line in file:lines() do found[#found + 1] = tonumber(line) end
    file:close()
  end
  return found
end

-- Explain the broken connections of an event by deaths; returns whether it is too early for one of them.
local function settle(suspect, now, path)
  if #suspect.breaks == 0 then return false end
  local noted, waiting = deaths(path), {}
  for _, broken in ipairs(suspect.breaks) do
    local cause
    for _, at in ipairs(noted) do
      if math.abs(at - broken) <= TOGETHER then cause = at end
    end
    if cause then
      -- The same event may have been in work twice when one process died: that is one death.
      if cause ~= suspect.counted then suspect.deaths, suspect.counted = suspect.deaths + 1, cause end
      suspect.aside = suspect.deaths > 1
    elseif now - broken <= TOGETHER then
      waiting[#waiting + 1] = broken
    end
  end
  suspect.breaks = waiting
  return #waiting > 0
end

-- Return why an event can't be taken now ("aside" or "later" and the seconds left), nil if it is taken.
function suspects.take(request, fingerprint, now, path)
  local suspect = known[fingerprint]
  if suspect then
    local early = settle(suspect, now, path)
    if suspect.aside and now <= suspect.ends then return "aside", suspect.ends - now end
    if early then return "later", 1 end
    if suspect.deaths == 0 or now > suspect.ends then known[fingerprint], count, suspect = nil, count - 1, nil end
  end
  if suspect then
    for _, other in pairs(known) do
      if other.busy and now - other.busy < FORGET then return "later", 1 end
    end
    suspect.busy = now
  end
  if working > 1000 then forget_old(now) end
  in_work[request] = { fingerprint = fingerprint, since = now }
  working = working + 1
  return nil
end

-- An answer came, of whatever kind, and nothing died.
function suspects.ended(request)
  local work = in_work[request]
  if not work then return end
  in_work[request], working = nil, working - 1
  if known[work.fingerprint] and known[work.fingerprint].busy then
    known[work.fingerprint], count = nil, count - 1
  end
end

-- The connection broke while this request was in work, or a server said that a process of it died.
function suspects.broke(request, now, seconds)
  local work = in_work[request]
  if not work then return end
  in_work[request], working = nil, working - 1
  local suspect = known[work.fingerprint]
  if not suspect then
    if count >= MOST then forget_old(now) end
    if count >= MOST then return end
    suspect = { deaths = 0, breaks = {} }
    known[work.fingerprint], count = suspect, count + 1
  end
  if #suspect.breaks < BREAKS then
    suspect.breaks[#suspect.breaks + 1] = now
  end
  suspect.busy, suspect.ends = nil, now + seconds
end

return suspects
