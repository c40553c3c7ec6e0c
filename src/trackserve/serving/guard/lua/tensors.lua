-- Whether the inputs of a request are those of its model, and as many numbers came as their shapes say.

local plain = require("json").plain

local tensors = {}

local WIDTH = { BOOL = 1, INT8 = 1, UINT8 = 1, INT16 = 2, UINT16 = 2, FP16 = 2, BF16 = 2, INT32 = 4,
  UINT32 = 4, FP32 = 4, INT64 = 8, UINT64 = 8, FP64 = 8 }

local function refuse(sentence) error({ refused = sentence }, 0) end

local function listed(names)
  table.sort(names)
  return table.concat(names, ", ")
end

local function written(shape)
  local sizes = {}
  for i, size in ipairs(shape) do sizes[i] = string.format("%.0f", size) end
  return "[" .. table.concat(sizes, ",") .. "]"
end

-- The number of elements of a shape; refuses what is negative, broken, or more than `most`.
local function elements(name, shape, most)
  if #shape > 8 then refuse("input '" .. name .. "' has " .. #shape .. " dimensions; expected at most 8") end
  for _, size in ipairs(shape) do
    if type(size) ~= "number" or size < 0 or size % 1 ~= 0 or size >= 2 ^ 53 then
      refuse("the shape of input '" .. name .. "' has a dimension that is not a whole number from 0 up")
    end
  end
  local product = 1
  for _, size in ipairs(shape) do
    product = product * size
    if product > most then
      refuse("the shape " .. written(shape) .. " of input '" .. name .. "' has more elements than this server takes in one request")
    end
  end
  return product
end

local function fits(shape, dims)
  if #shape ~= #dims then return false end
  for i, size in ipairs(dims) do
    if size ~= -1 and size ~= shape[i] then return false end
  end
  return true
end

-- Check one input against its model; returns its number of bytes.
local function check_input(input, model, limits)
  local name = plain(input.name or "")
  local given = model.inputs[input.name or ""]
  if not given then
    local names = {}
    for known in pairs(model.inputs) do names[#names + 1] = known end
    refuse("unexpected inference input '" .. name .. "' for model '" .. model.name .. "'; expected " .. listed(names))
  end
  if input.datatype ~= given.datatype then
    refuse("inference input '" .. name .. "' data-type is '" .. plain(input.datatype or "") .. "', but model '"
      .. model.name .. "' expects '" .. given.datatype .. "'")
  end
  local width = WIDTH[given.datatype]
  local count = elements(name, input.shape, limits.most_bytes / width)
  if not fits(input.shape, given.dims) then
    refuse("unexpected shape for input '" .. name .. "' for model '" .. model.name .. "': expected "
      .. written(given.dims) .. ", got " .. written(input.shape))
  end
  return count, count * width
end

-- Check that an input's numbers, which came as `bytes` or as a `count`, are as many as its shape says.
local function check_amount(input, count, bytes)
  local name = plain(input.name)
  if input.bytes and input.bytes ~= bytes then
    refuse("input '" .. name .. "' of shape " .. written(input.shape) .. " needs " .. string.format("%.0f", bytes)
      .. " bytes, got " .. string.format("%.0f", input.bytes))
  end
  if input.count and input.count ~= count then
    refuse("input '" .. name .. "' of shape " .. written(input.shape) .. " needs " .. string.format("%.0f", count)
      .. " numbers, got " .. string.format("%.0f", input.count))
  end
  if not input.bytes and not input.count then
    refuse("input '" .. name .. "' came without its numbers")
  end
end

-- Check a request: { model, inputs = { { name, datatype, shape, bytes | count } }, outputs = { name } }.
function tensors.check(model, inputs, outputs, limits)
  local seen, expected = {}, model.expected -- fewer than model.inputs where one may come instead of another
  for _, input in ipairs(inputs) do
    local count, bytes = check_input(input, model, limits)
    if seen[input.name] then refuse("input '" .. plain(input.name) .. "' came twice") end
    seen[input.name] = true
    check_amount(input, count, bytes)
  end
  if #inputs ~= expected then
    refuse("expected " .. expected .. " inputs but got " .. #inputs .. " inputs for model '" .. model.name .. "'")
  end
  for _, output in ipairs(outputs) do
    if not model.outputs[output] then
      refuse("unexpected inference output '" .. plain(output) .. "' for model '" .. model.name .. "'")
    end
  end
end

return tensors
