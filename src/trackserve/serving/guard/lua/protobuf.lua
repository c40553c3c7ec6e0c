-- A KServe ModelInferRequest as far as a guard needs it: names, shapes, and where the numbers are.
--
-- Reads only the parts that describe the tensors. The numbers themselves are skipped by their length, so
-- the time does not grow with the event. Strict: what no KServe client writes (groups, unknown or repeated
-- fields, numbers that are not packed) is refused.
--
-- Source: grpc_service.proto of https://github.com/kserve/open-inference-protocol and
-- https://protobuf.dev/programming-guides/encoding.

local protobuf = {}

local WINDOW = 1024 -- bytes that are copied from the body at a time
local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
local LARGEST = 2 ^ 53 -- whole numbers beyond are not exact here, and no tensor has such a size

local function refuse(sentence) error({ refused = sentence }, 0) end

-- A reader of a body: copies a window where it is needed. Positions count from 0.
local Reader = {}
Reader.__index = Reader

local function new_reader(body, length)
  return setmetatable({ body = body, length = length, from = 0, window = "" }, Reader)
end

function Reader:byte(position)
  local at = position - self.from
  if at < 0 or at >= #self.window then
    if position >= self.length then refuse("the message ends in the middle of a field") end
    self.from = position
    self.window = self.body:getBytes(position, math.min(WINDOW, self.length - position))
    at = 0
  end
  return self.window:byte(at + 1)
end

function Reader:bytes(position, length)
  if length == 0 then return "" end
  local at = position - self.from
  if at >= 0 and at + length <= #self.window then
    return self.window:sub(at + 1, at + length)
  end
  return self.body:getBytes(position, length)
end

-- A varint and where it ends. Negative numbers (ten bytes) and those beyond 2^53 come back as nil.
function Reader:varint(position)
  local value, scale = 0, 1
  for i = 0, 9 do
    local byte = self:byte(position + i)
    value, scale = value + byte % 128 * scale, scale * 128
    if byte < 128 then
      if value >= LARGEST then value = nil end
      return value, position + i + 1
    end
  end
  refuse("a number in the message has more than ten bytes")
end

-- Iterate over the fields of a message between two positions: number, wire type, value or start, end.
function Reader:fields(from, to, budget)
  return function()
    if from >= to then return nil end
    budget.fields = budget.fields - 1
    if budget.fields < 0 then refuse("the message has too many fields; a request has one input or a few") end
    local key, position = self:varint(from)
    if not key or key < 8 then refuse("a field of the message has no valid number") end
    local wire, number = key % 8, math.floor(key / 8)
    local value, stop
    if wire == VARINT then
      value, stop = self:varint(position)
      if value == nil then value = -1 end
    elseif wire == BYTES then
      local length
      length, value = self:varint(position)
      if not length then refuse("a field of the message is longer than the message") end
      stop = value + length
    elseif wire == FIXED64 then
      value, stop = position, position + 8
    elseif wire == FIXED32 then
      value, stop = position, position + 4
    else
      refuse("the message is not a KServe inference request")
    end
    if stop > to then refuse("a field of the message is longer than the message") end
    from = stop
    return number, wire, value, stop
  end
end

local function text(reader, wire, from, to, what, longest)
  if wire ~= BYTES then refuse("the message is not a KServe inference request") end
  if to - from > longest then refuse(what .. " has " .. (to - from) .. " bytes; expected at most " .. longest) end
  return reader:bytes(from, to - from)
end

-- The keys of a map of parameters, and the whole numbers among its values.
local function parameter(reader, from, to, budget)
  local key, value = "", nil
  for number, wire, start, stop in reader:fields(from, to, budget) do
    if number == 1 then
      key = text(reader, wire, start, stop, "a parameter's name", 256)
    elseif number == 2 and wire == BYTES then
      for kind, inner, given in reader:fields(start, stop, budget) do
        if kind == 2 and inner == VARINT then value = given end
      end
    else
      refuse("the message is not a KServe inference request")
    end
  end
  return key, value
end

-- Bytes of packed numbers in `contents`, by the KServe type that they are of.
local CONTENTS = { [2] = "INT32", [3] = "INT64", [4] = "UINT32", [5] = "UINT64", [6] = "FP32", [7] = "FP64" }
local WIDTH = { FP32 = 4, FP64 = 8 }

local function contents(reader, from, to, budget)
  local found
  for number, wire, start, stop in reader:fields(from, to, budget) do
    if found or wire ~= BYTES or not CONTENTS[number] then
      refuse("an input's contents are not one list of packed numbers of its type")
    end
    found = { datatype = CONTENTS[number], from = start, bytes = stop - start }
    local width = WIDTH[found.datatype]
    if width then
      found.count = found.bytes / width
    else
      found.count = 0
      for position = start, stop - 1 do
        if reader:byte(position) < 128 then found.count = found.count + 1 end
      end
    end
  end
  return found
end

local function tensor(reader, from, to, budget)
  local input = { shape = {}, parameters = {} }
  for number, wire, start, stop in reader:fields(from, to, budget) do
    if number == 1 and not input.name then
      input.name = text(reader, wire, start, stop, "an input's name", 256)
    elseif number == 2 and not input.datatype then
      input.datatype = text(reader, wire, start, stop, "an input's datatype", 16)
    elseif number == 3 and wire == VARINT then
      input.shape[#input.shape + 1] = start
    elseif number == 3 and wire == BYTES then
      while start < stop do
        budget.fields = budget.fields - 1
        if budget.fields < 0 then refuse("an input's shape has too many dimensions") end
        local size
        size, start = reader:varint(start)
        input.shape[#input.shape + 1] = size or -1
      end
      if start ~= stop then refuse("the message ends in the middle of a field") end
    elseif number == 4 and wire == BYTES then
      local key, value = parameter(reader, start, stop, budget)
      input.parameters[key] = value or true
    elseif number == 5 and wire == BYTES and not input.contents then
      input.contents = contents(reader, start, stop, budget)
    else
      refuse("the message is not a KServe inference request")
    end
  end
  return input
end

-- Parse the request that lies in a body between two positions.
-- Returns { model, version, id, parameters, inputs, outputs, raw }; raw has from and bytes of each content.
function protobuf.infer_request(body, from, to, most_fields)
  local reader, budget = new_reader(body, to), { fields = most_fields }
  local found = { parameters = {}, inputs = {}, outputs = {}, raw = {} }
  for number, wire, start, stop in reader:fields(from, to, budget) do
    if number == 1 and not found.model then
      found.model = text(reader, wire, start, stop, "the model's name", 256)
    elseif number == 2 and not found.version then
      found.version = text(reader, wire, start, stop, "the model's version", 32)
    elseif number == 3 and not found.id then
      found.id = text(reader, wire, start, stop, "the request's id", 256)
    elseif number == 4 and wire == BYTES then
      local key, value = parameter(reader, start, stop, budget)
      found.parameters[key] = value or true
    elseif number == 5 and wire == BYTES then
      found.inputs[#found.inputs + 1] = tensor(reader, start, stop, budget)
    elseif number == 6 and wire == BYTES then
      local output = { parameters = {} }
      for inner, inner_wire, inner_start, inner_stop in reader:fields(start, stop, budget) do
        if inner == 1 and not output.name then
          output.name = text(reader, inner_wire, inner_start, inner_stop, "an output's name", 256)
        elseif inner == 2 and inner_wire == BYTES then
          local key, value = parameter(reader, inner_start, inner_stop, budget)
          output.parameters[key] = value or true
        else
          refuse("the message is not a KServe inference request")
        end
      end
      found.outputs[#found.outputs + 1] = output
    elseif number == 7 and wire == BYTES then
      found.raw[#found.raw + 1] = { from = start, bytes = stop - start }
    else
      refuse("the message is not a KServe inference request")
    end
  end
  return found
end

-- The model's name and version in the small requests (metadata, configuration, statistics, readiness):
-- whatever they are, they are a few short strings.
function protobuf.small_request(body, from, to)
  local reader, budget, name = new_reader(body, to), { fields = 8 }, nil
  for number, wire, start, stop in reader:fields(from, to, budget) do
    if wire ~= BYTES and wire ~= VARINT then refuse("the message is not one of KServe's requests") end
    if wire == BYTES then
      local value = text(reader, wire, start, stop, "a name", 256)
      if number == 1 then name = value end
    end
  end
  return name
end

return protobuf
