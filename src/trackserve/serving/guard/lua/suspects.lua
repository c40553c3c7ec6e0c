-- Events that were in work when a process of a server died.
--
-- The first time an event is only suspected: others were perhaps in work beside it. It may come again, but one
-- suspect at a time, so that the next death names its cause. The second time, or the first if it was alone, it is
-- set aside for a while. An answer clears it.

local suspects = {}

local MOST = 10000 -- suspects that are kept
local FORGET = 120 -- seconds after which a request that never ended (its client went) no longer counts

local TOGETHER = 1 -- seconds within which requests broken off belong to one death

local known, count = {}, 0 -- by fingerprint: { deaths, busy, until }
local in_work = {} -- by request: { fingerprint, since, beside }
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

-- Return why an event can't be taken now ("aside" or "later" and the seconds left), nil if it is taken.
function suspects.take(request, fingerprint, now)
  local suspect = known[fingerprint]
  if suspect and now > suspect.ends then
    known[fingerprint], count, suspect = nil, count - 1, nil
  end
  if suspect then
    if suspect.aside then return "aside", suspect.ends - now end
    for _, other in pairs(known) do
      if other.busy and now - other.busy < FORGET then return "later", 1 end
    end
    suspect.busy = now
  end
  if working > 1000 then forget_old(now) end
  in_work[request] = { fingerprint = fingerprint, since = now, alone = working == 0 }
  working = working + 1
  if working > 1 then
    for _, work in pairs(in_work) do work.alone = false end
  end
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

-- A process died while this request was in work. Returns whether its event is set aside from now on.
function suspects.died(request, now, seconds)
  local work = in_work[request]
  if not work then return false end
  in_work[request], working = nil, working - 1
  local suspect = known[work.fingerprint]
  if not suspect then
    if count >= MOST then forget_old(now) end
    if count >= MOST then return false end
    suspect = { deaths = 0 }
    known[work.fingerprint], count = suspect, count + 1
  end
  -- The same event may have been in work twice when one process died: that is one death.
  if not suspect.last or now - suspect.last > TOGETHER then suspect.deaths = suspect.deaths + 1 end
  suspect.last, suspect.busy, suspect.ends = now, nil, now + seconds
  suspect.aside = suspect.deaths > 1 or work.alone
  return suspect.aside
end

return suspects
