-- Who sends a request: a client's certificate, a token, or both, as the operator asks for.

local json = require("json")
local sha256 = require("sha256")

local credentials = {}

local LOOK = 1 -- seconds between looks at the file of tokens
local LONGEST = 4096 -- bytes of a token
local MOST = 100000 -- values in the file
-- Whoever watches a server may ask whether it lives and is ready.
local OPEN = {
  ["/v2/health/live"] = true, ["/v2/health/ready"] = true, ["/alive"] = true, ["/grpc.health.v1.Health/Check"] = true,
  ["/inference.GRPCInferenceService/ServerLive"] = true, ["/inference.GRPCInferenceService/ServerReady"] = true,
}

local clients, looked = {}, -LOOK
local buckets = {} -- by client: { left, at }

local function refuse(outcome, sentence) error({ refused = sentence, outcome = outcome }, 0) end

local function look(path, now)
  if now - looked < LOOK then return end
  looked = now
  local file = io.open(path, "rb")
  if not file then return end
  local fine, found = pcall(json.read, file:read("*a"), MOST)
  file:close()
  if fine then clients = found end
end

local function check_certificate(handle, now)
  local tls = handle:streamInfo():downstreamSslConnection()
  if not tls or not tls:peerCertificatePresented() then
    refuse("missing", "this server asks for a client's certificate, and none came")
  end
  if (tls:expirationPeerCertificate() or 0) < now then
    refuse("expired", "the client's certificate has expired; renew it")
  end
  if not tls:peerCertificateValidated() then
    refuse("wrong", "the client's certificate is not one of the authority that this server trusts")
  end
end

-- Take one from a client's bucket, which fills at its rate and holds a second's worth.
local function check_rate(client, now)
  local rate = client.requests_per_second
  if not rate then return end
  local most = math.max(1, rate)
  local bucket = buckets[client.name] or { left = most, at = now }
  buckets[client.name] = bucket
  bucket.left = math.min(most, bucket.left + (now - bucket.at) * rate)
  bucket.at = now
  if bucket.left < 1 then
    refuse("limited", ("%s may send %g requests a second; retry after %.3g s"):format(
      client.name, rate, math.max(0.01, (1 - bucket.left) / rate)))
  end
  bucket.left = bucket.left - 1
end

-- Return the client of a request that may be sent, nil where everybody's may; refuses others.
function credentials.check(handle, headers, path, settings, now)
  if OPEN[path] then return nil end
  if settings.client_certificates then check_certificate(handle, now) end
  if not settings.tokens then return nil end
  look(settings.tokens, now)
  local given = headers:get("authorization")
  if not given then refuse("missing", "this server asks for a token, and none came: authorization: Bearer TOKEN") end
  local token = given:match("^[Bb]earer +(%S+) *$")
  local client = token and #token <= LONGEST and clients[sha256(token)] or nil
  if not client then refuse("wrong", "the token is not one that this server knows") end
  if client.ends and now >= client.ends then
    refuse("expired", "the token of " .. client.name .. " has expired; ask for a new one")
  end
  check_rate(client, now)
  -- The servers have no use for it.
  headers:remove("authorization")
  return client
end

return credentials
