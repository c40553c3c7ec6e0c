-- Looks at each request before a server parses it: path, size, form, names, shapes against data, credentials.
--
-- What is wrong is answered here, with 400 or INVALID_ARGUMENT and one sentence. Runs in Envoy's one worker
-- thread, so what is global here is known to all requests.

local protobuf = require("protobuf")
local json = require("json")
local inflate = require("inflate")
local tensors = require("tensors")
local suspects = require("suspects")
local credentials = require("credentials")
local fingerprint = require("fingerprint")

local SERVICE = "/inference.GRPCInferenceService/"
local SMALL = 65536 -- bytes of a request that carries no tensors
local HEAD = 65536 -- bytes of the JSON before binary tensors
local FIELDS = 500 -- of a protobuf message
local GRPC = { malformed = 3, too_large = 3, set_aside = 3, unknown = 5, closed = 7, missing = 16, wrong = 16,
  expired = 16, not_allowed = 7, limited = 14, later = 14, died = 14, full = 14, unreachable = 14, failed = 13 }
local HTTP = { malformed = 400, too_large = 400, set_aside = 400, unknown = 404, closed = 403, missing = 401,
  wrong = 401, expired = 401, not_allowed = 403, limited = 429, later = 503, died = 503, full = 503,
  unreachable = 503, failed = 500 }

local settings
do
  local file = assert(io.open(SETTINGS, "rb"))
  settings = json.read(file:read("*a"))
  file:close()
  for name, model in pairs(settings.models) do model.name = name end
end

local requests = 0 -- a number for each

local function refuse(outcome, sentence) error({ refused = sentence, outcome = outcome }, 0) end

local function seconds(handle) return tonumber(handle:timestampString()) / 1000 end

local function escaped(sentence)
  return (sentence:gsub("[^ -$&-~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function quoted(sentence)
  return (sentence:gsub('[%c"\\]', function(c) return ("\\u%04x"):format(c:byte()) end))
end

local function answer(handle, grpc, outcome, sentence)
  handle:streamInfo():dynamicMetadata():set("guard", "outcome", outcome)
  local headers
  if grpc then
    headers = { [":status"] = "200", ["content-type"] = "application/grpc",
      ["grpc-status"] = tostring(GRPC[outcome]), ["grpc-message"] = escaped(sentence) }
    handle:respond(headers, nil)
  else
    headers = { [":status"] = tostring(HTTP[outcome]), ["content-type"] = "application/json" }
    if HTTP[outcome] == 401 then headers["www-authenticate"] = "Bearer" end
    handle:respond(headers, '{"error":"' .. quoted(sentence) .. '"}')
  end
end

-- What each path is: infer, small (a message without tensors), get. Everything else is closed.
local METHODS = {
  ServerLive = "small", ServerReady = "small", ModelReady = "small", ServerMetadata = "small",
  ModelMetadata = "small", ModelConfig = "small", ModelStatistics = "small", RepositoryIndex = "small",
  ModelInfer = "infer",
}
local SHARED_MEMORY = { SystemSharedMemoryStatus = "small", SystemSharedMemoryRegister = "small",
  SystemSharedMemoryUnregister = "small" }

local function grpc_kind(path)
  if path == "/grpc.health.v1.Health/Check" then return "small" end
  local name = path:sub(1, #SERVICE) == SERVICE and path:sub(#SERVICE + 1) or ""
  if METHODS[name] then return METHODS[name] end
  if settings.shared_memory and SHARED_MEMORY[name] then return "small" end
  if name == "ModelStreamInfer" then
    refuse("closed", "this server takes an event in a request; use ModelInfer, not a stream")
  end
  refuse("closed", "this method is not open to clients")
end

local GETS = { ["/v2"] = true, ["/v2/health/live"] = true, ["/v2/health/ready"] = true, ["/v2/models/stats"] = true,
  ["/metrics"] = true, ["/fleet/status"] = true, ["/alive"] = true }
local OF_A_MODEL = { [""] = true, ["/ready"] = true, ["/config"] = true, ["/stats"] = true }

local function http_kind(method, path)
  if path ~= "/" and path:sub(-1) == "/" then path = path:sub(1, -2) end
  local get = GETS[path]
  if path == "/v2/repository/index" then return "post" end
  local name, rest = path:match("^/v2/models/([%w_.-]+)(.*)$")
  if name and not get then
    local _, stop = rest:find("^/versions/%d+")
    rest = rest:sub((stop or 0) + 1)
    if rest == "/infer" then
      if method ~= "POST" then refuse("malformed", "an inference request is a POST, not a " .. json.plain(method)) end
      return "infer", name
    end
    get = OF_A_MODEL[rest]
  end
  if settings.shared_memory and path:find("^/v2/systemsharedmemory/") then return "post" end
  if not get then refuse("unknown", "nothing is open to clients at this path") end
  if method ~= "GET" and method ~= "HEAD" then refuse("malformed", "this path takes GET, not " .. json.plain(method)) end
  return "get", name
end

local function model_named(name)
  local model = settings.models[name]
  if not model then
    refuse("unknown", "Request for unknown model: '" .. json.plain(name or "") .. "' is not found")
  end
  return model
end

local function check_id(id)
  if id and (#id > 256 or id:find("[^\32-\126]")) then
    refuse("malformed", "the request's id has other than up to 256 printable ASCII characters")
  end
end

local function too_large(bytes)
  refuse("too_large", ("the request has %.0f bytes; this server takes at most %.0f bytes, which is %.0f hits"):format(
    bytes, settings.most_bytes, settings.most_hits))
end

-- The body, decompressed if it came compressed.
local function plain_body(handle, body, from, encoding)
  local length = body:length() - from
  if encoding == "identity" then return body, from, length end
  if encoding ~= "gzip" and encoding ~= "deflate" then
    refuse("malformed", "the request is compressed as '" .. json.plain(encoding) .. "'; expected gzip, deflate or nothing")
  end
  local most = math.min(settings.most_bytes, settings.most_ratio * length)
  local bytes = inflate(body:getBytes(from, length), encoding, most)
  return bytes
end

local function check_grpc(handle, headers, path)
  local kind = grpc_kind(path)
  local body = handle:body(true)
  headers = handle:headers() -- those from before the wait can't be used any more
  local length = body:length()
  if length < 5 then refuse("malformed", "the request has no message") end
  local flag, a, b, c, d = body:getBytes(0, 5):byte(1, 5)
  local bytes = ((a * 256 + b) * 256 + c) * 256 + d
  if flag > 1 or bytes ~= length - 5 then
    refuse("malformed", "the request is not one whole message of the length that it states")
  end
  if flag == 1 then
    local message = plain_body(handle, body, 5, headers:get("grpc-encoding") or "identity")
    if type(message) ~= "string" then refuse("malformed", "the message is flagged as compressed, without a grpc-encoding") end
    local n = #message
    body:setBytes(string.char(0, math.floor(n / 2 ^ 24), math.floor(n / 2 ^ 16) % 256, math.floor(n / 256) % 256, n % 256) .. message)
    headers:remove("grpc-encoding")
    headers:remove("content-length")
    length = n + 5
  end
  if kind == "small" then
    if length > SMALL then too_large(length) end
    protobuf.small_request(body, 5, length)
    return nil, length
  end
  local request = protobuf.infer_request(body, 5, length, FIELDS)
  local model = model_named(request.model)
  check_id(request.id)
  local raw, outputs = 0, {}
  for _, input in ipairs(request.inputs) do
    local shared = input.parameters.shared_memory_region
    if shared then
      if not settings.shared_memory then refuse("malformed", "this server takes no tensors through shared memory") end
      input.bytes = tonumber(input.parameters.shared_memory_byte_size) or 0
    elseif input.contents then
      if input.contents.datatype ~= input.datatype then
        refuse("malformed", "an input's contents are not one list of packed numbers of its type")
      end
      input.count = input.contents.count
    else
      raw = raw + 1
      input.bytes = request.raw[raw] and request.raw[raw].bytes
    end
  end
  if raw ~= #request.raw then
    refuse("malformed", "the request has " .. #request.raw .. " raw contents for " .. raw .. " inputs")
  end
  for i, output in ipairs(request.outputs) do
    if output.parameters.shared_memory_region and not settings.shared_memory then
      refuse("malformed", "this server takes no tensors through shared memory")
    end
    outputs[i] = output.name or ""
  end
  tensors.check(model, request.inputs, outputs, settings)
  local first = request.raw[1] or (request.inputs[1] and request.inputs[1].contents)
  return first and fingerprint(body, first.from, first.bytes), length
end

local is_map = json.is_map

local function list(value, what)
  if not json.is_list(value) then refuse("malformed", "the request's " .. what .. " are not a list") end
  return value
end

-- An input of the JSON, with the bytes of its binary data if it has such.
local function json_input(given)
  if not is_map(given) or type(given.name) ~= "string" or type(given.datatype) ~= "string" then
    refuse("malformed", "an input has no name, shape and datatype")
  end
  local parameters = given.parameters or {}
  if not is_map(parameters) then refuse("malformed", "an input's parameters are not a map") end
  local input = { name = given.name, datatype = given.datatype, shape = list(given.shape, "inputs' shapes") }
  if parameters.shared_memory_region then
    if not settings.shared_memory then refuse("malformed", "this server takes no tensors through shared memory") end
    input.bytes = tonumber(parameters.shared_memory_byte_size) or 0
    return input, 0
  end
  if parameters.binary_data_size ~= nil then
    if type(parameters.binary_data_size) ~= "number" or given.data ~= nil then
      refuse("malformed", "an input has either data or a binary_data_size that is a number")
    end
    input.bytes = parameters.binary_data_size
    return input, input.bytes
  end
  input.count = json.count(given.data)
  if not input.count then
    refuse("malformed", "input '" .. json.plain(given.name) .. "' came without its numbers")
  end
  return input, 0
end

local function check_json(text, model, binary)
  local request = json.read(text)
  if not is_map(request) then refuse("malformed", "the request is not a map of JSON") end
  if request.id ~= nil and type(request.id) ~= "string" then refuse("malformed", "the request's id is not a text") end
  check_id(request.id)
  local inputs, outputs, bytes = {}, {}, 0
  for i, given in ipairs(list(request.inputs, "inputs")) do
    local own
    inputs[i], own = json_input(given)
    bytes = bytes + own
  end
  for i, given in ipairs(request.outputs and list(request.outputs, "outputs") or {}) do
    if not is_map(given) or type(given.name) ~= "string" then refuse("malformed", "an output has no name") end
    if is_map(given.parameters) and given.parameters.shared_memory_region and not settings.shared_memory then
      refuse("malformed", "this server takes no tensors through shared memory")
    end
    outputs[i] = given.name
  end
  tensors.check(model, inputs, outputs, settings)
  if bytes ~= binary then
    refuse("malformed", ("the request has %.0f bytes of binary data; its inputs say %.0f"):format(binary, bytes))
  end
end

-- What a server needs of a request's head. All else stays here: what it makes of long or odd headers may break the
-- connection that others share, and some make Envoy send a request again.
local KEPT = { ["content-length"] = true, ["content-type"] = true, ["inference-header-content-length"] = true,
  ["accept-encoding"] = true, ["user-agent"] = true, ["x-request-id"] = true, ["x-forwarded-proto"] = true, te = true,
  ["grpc-accept-encoding"] = true, traceparent = true, tracestate = true }
local LONGEST = 512 -- bytes of such a header

local function tidy(headers, grpc)
  local timeout, others = headers:get("grpc-timeout"), {}
  for name, value in pairs(headers) do
    if name:byte() ~= 58 and (not KEPT[name] or #value > LONGEST or value:find("[^\32-\126]")) then
      others[#others + 1] = name
    end
  end
  for _, name in ipairs(others) do headers:remove(name) end
  if not grpc then return end
  -- The deadline is for the client to keep. A server that keeps it, too, cancels the request as its answer is sent,
  -- and tritonserver 2.51 may end of that.
  if timeout and not (#timeout <= 9 and timeout:find("^%d+[HMSmun]$")) then
    refuse("malformed", "the header grpc-timeout is not up to eight digits and a unit")
  end
  headers:replace("content-type", "application/grpc")
  headers:replace("te", "trailers")
end

local function single(headers, name)
  if (headers:getNumValues(name) or 0) > 1 then refuse("malformed", "the header " .. name .. " came twice") end
  return headers:get(name)
end

local function check_http(handle, headers, path)
  local method = headers:get(":method")
  local kind, name = http_kind(method, path)
  local length = tonumber(headers:get("content-length") or 0)
  if length > settings.most_bytes then too_large(length) end
  local body = handle:body(true)
  headers = handle:headers() -- those from before the wait can't be used any more
  length = body:length()
  if kind == "get" then
    if length > 0 then refuse("malformed", "this path takes no body") end
    return
  end
  local encoding = single(headers, "content-encoding") or "identity"
  local text
  if encoding ~= "identity" then
    text = plain_body(handle, body, 0, encoding)
    body:setBytes(text)
    headers:remove("content-encoding")
    length = #text
  end
  -- One length, no chunks: what arrives in many small pieces reaches the server as a whole.
  headers:replace("content-length", tostring(length))
  headers:remove("transfer-encoding")
  if kind == "post" then
    if length > SMALL then too_large(length) end
    if length > 0 then json.read(body:getBytes(0, length)) end
    return
  end
  local model = model_named(name)
  local head, said = length, single(headers, "inference-header-content-length")
  if said then
    head = said:find("^%d+$") and #said < 12 and tonumber(said)
    if not head or head > length or head == 0 then
      refuse("malformed", "inference-header-content-length is not a length of JSON within the body")
    end
    if head > HEAD and head < length then
      refuse("malformed", ("the JSON before binary data has %d bytes; expected at most %d bytes"):format(head, HEAD))
    end
  end
  if head == 0 then refuse("malformed", "the request has no body") end
  check_json(body:getBytes(0, head), model, length - head)
  if head < length then return fingerprint(body, head, length - head), length end
  return fingerprint(body, 0, length), length
end

local function check(handle, headers, path, grpc)
  local now = seconds(handle)
  local client = credentials.check(handle, headers, path, settings, now)
  if client then
    handle:streamInfo():dynamicMetadata():set("guard", "client", client.name)
  end
  local from, bytes
  if grpc then from, bytes = check_grpc(handle, headers, path) else from, bytes = check_http(handle, headers, path) end
  if client and client.max_request_bytes and (bytes or 0) > client.max_request_bytes then
    refuse("too_large", ("the request has %.0f bytes; this client may send at most %.0f"):format(bytes, client.max_request_bytes))
  end
  tidy(handle:headers(), grpc)
  if not from then return end
  requests = requests + 1
  local why, left = suspects.take(requests, from, now, settings.deaths)
  if why == "aside" then
    refuse("set_aside", ("a process of the server ended while it worked on this event; it is set aside for %.0f s"):format(left))
  elseif why then
    refuse("later", "events in work when a process of the server ended come one at a time; retry after 1 s")
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set("guard", "request", requests)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path"):match("^[^?#]*")
  local grpc = (headers:get("content-type") or ""):find("^application/grpc") ~= nil
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set("guard", "grpc", grpc)
  local fine, problem = pcall(check, handle, headers, path, grpc)
  if fine then
    handle:headers():replace(":path", path)
    return
  end
  if type(problem) == "table" and problem.refused then
    answer(handle, grpc, problem.outcome or "malformed", problem.refused)
  else
    handle:logErr(tostring(problem))
    answer(handle, grpc, "failed", "the guard failed on this request; its log has the reason")
  end
end

-- What a server's own failures are to a client: the outcome and a sentence that names nothing internal.
local function meaning(text)
  if text:find("Stub process", 1, true) then
    return "died", "a process of the server ended while it worked on this request; it is being restarted"
  elseif text:find("shared memory", 1, true) or text:find("No space left", 1, true) or text:find("Bus error", 1, true) then
    return "full", "the server has no shared memory left for this event; retry after 1 s"
  elseif text:find("attempt to ", 1, true) or text:find("to parse", 1, true) then
    -- Parts of the request that only Triton's parser reads; to it they are failures of its own.
    return "malformed", text:match('"error":"([^"]*)"') or text
  end
end

local DETAILS = "x-guard-details" -- set by Envoy's own answers

local function own_answer(headers, details)
  if details:find("payload_too_large", 1, true) or details:find("request_entity_too_large", 1, true) then
    return "too_large", ("the request is too large; this server takes at most %.0f bytes, which is %.0f hits"):format(
      settings.most_bytes, settings.most_hits)
  elseif details:find("overflow", 1, true) then
    if not settings.room then return "full", "the queue is full; retry after 1 s" end -- it changes with the servers
    return "full", ("the queue is full: %.0f requests wait or are worked on; retry after 1 s"):format(settings.room)
  elseif details:find("reset_after_response_started", 1, true) or details:find("reset_before_response_started", 1, true) then
    if details:find("connection_failure", 1, true) then
      return "unreachable", "no server answers; one is being started or restarted"
    end
    return "died", "the server broke off this request, and it was not sent again"
  elseif details:find("no_healthy_upstream", 1, true) then
    return "unreachable", "no server answers; one is being started or restarted"
  end
end

local function rewrite(headers, grpc, outcome, sentence)
  -- A guard in front of this one sends a request again that is refused; not one that may end the next server.
  if outcome == "died" then headers:replace("x-envoy-ratelimited", "true") end
  if grpc then
    headers:replace("grpc-status", tostring(GRPC[outcome]))
    headers:replace("grpc-message", escaped(sentence))
  else
    headers:replace(":status", tostring(HTTP[outcome]))
    headers:replace("content-type", "application/json")
  end
end

function envoy_on_response(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local own = metadata:get("guard") or {}
  if own.outcome then return end
  local headers = handle:headers()
  local status, grpc = headers:get(":status"), own.grpc
  local details = headers:get(DETAILS)
  local failed = (grpc and headers:get("grpc-status") or "0") ~= "0" or (not grpc and status >= "500") or details
  local outcome, sentence = "passed", nil
  if failed then
    if details then
      headers:remove(DETAILS)
      outcome, sentence = own_answer(headers, details)
    elseif grpc then
      outcome, sentence = meaning(headers:get("grpc-message") or "")
    else
      local body = handle:body(true)
      outcome, sentence = meaning(body:getBytes(0, math.min(body:length(), 4096)))
      headers = handle:headers()
    end
    if sentence then
      rewrite(headers, grpc, outcome, sentence)
      if not grpc then
        local text = '{"error":"' .. quoted(sentence) .. '"}'
        handle:body(true):setBytes(text) -- may wait for the body: the headers are another object after that
        handle:headers():replace("content-length", tostring(#text))
      end
    end
  end
  outcome = outcome or "passed"
  -- The object from before the wait for the body can't be used any more.
  handle:streamInfo():dynamicMetadata():set("guard", "outcome", outcome)
  if own.request then
    if outcome == "died" then
      suspects.broke(own.request, seconds(handle), settings.aside_seconds)
    else
      suspects.ended(own.request)
    end
  end
end
