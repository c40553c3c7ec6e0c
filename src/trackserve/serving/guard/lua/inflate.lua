-- Decompression of gzip (RFC 1952) and zlib (RFC 1950) with a bound on what comes out.
--
-- Envoy's own decompressor hands damaged data on without a word; this one refuses what is cut off, does not add
-- up, or is followed by something else.

local ffi = require("ffi")
local bit = require("bit")
local band, bor, bxor, lshift, rshift = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift

local LONGEST = 15 -- bits of a Huffman code

local function damaged() error({ refused = "the compressed body is damaged or cut off" }, 0) end

local CRC = ffi.new("uint32_t[256]")
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    c = band(c, 1) == 1 and bxor(0xedb88320, rshift(c, 1)) or rshift(c, 1)
  end
  CRC[i] = c
end

local function crc32(bytes, count)
  local c = -1
  for i = 0, count - 1 do
    c = bxor(CRC[band(bxor(c, bytes[i]), 255)], rshift(c, 8))
  end
  return band(bxor(c, -1), -1)
end

local function adler32(bytes, count)
  local a, b, i = 1, 0, 0
  while i < count do
    local stop = math.min(i + 3000, count)
    while i < stop do
      a = a + bytes[i]
      b = b + a
      i = i + 1
    end
    a, b = a % 65521, b % 65521
  end
  return bit.tobit(b * 65536 + a)
end

-- Bits of the input, from the lowest of each byte.
local Input = {}
Input.__index = Input

function Input:bits(count)
  while self.have < count do
    if self.at >= self.stop then damaged() end
    self.hold = bor(self.hold, lshift(self.bytes[self.at], self.have))
    self.at, self.have = self.at + 1, self.have + 8
  end
  local value = band(self.hold, lshift(1, count) - 1)
  self.hold, self.have = rshift(self.hold, count), self.have - count
  return value
end

-- A decoding table of 2^LONGEST entries, of which one look finds the symbol and the length: symbol * 16 + length.
local function table_of(lengths, from, count)
  local codes, next_code, code = ffi.new("int32_t[16]"), ffi.new("int32_t[16]"), 0
  for i = from, from + count - 1 do codes[lengths[i]] = codes[lengths[i]] + 1 end
  codes[0] = 0
  local longest = 0
  for length = 1, LONGEST do
    code = (code + codes[length - 1]) * 2
    next_code[length] = code
    if code + codes[length] > 2 ^ length then damaged() end
    if codes[length] > 0 then longest = length end
  end
  local size = 2 ^ longest
  local found = ffi.new("uint16_t[?]", size)
  for symbol = 0, count - 1 do
    local length = lengths[from + symbol]
    if length > 0 then
      local own, reversed = next_code[length], 0
      next_code[length] = own + 1
      for _ = 1, length do
        reversed = reversed * 2 + own % 2
        own = math.floor(own / 2)
      end
      local entry, step = symbol * 16 + length, lshift(1, length)
      for i = reversed, size - 1, step do found[i] = entry end
    end
  end
  return { entries = found, longest = longest, mask = size - 1 }
end

local function symbol(input, codes)
  local bytes, hold, have, at = input.bytes, input.hold, input.have, input.at
  while have < codes.longest and at < input.stop do
    hold = bor(hold, lshift(bytes[at], have))
    at, have = at + 1, have + 8
  end
  local entry = codes.entries[band(hold, codes.mask)]
  local length = entry % 16
  if length == 0 or length > have then damaged() end
  input.hold, input.have, input.at = rshift(hold, length), have - length, at
  return rshift(entry, 4)
end

local LENGTHS, LENGTH_BITS = ffi.new("uint16_t[29]"), ffi.new("uint8_t[29]")
local DISTANCES, DISTANCE_BITS = ffi.new("uint16_t[30]"), ffi.new("uint8_t[30]")
do
  local base = 3
  for i = 0, 27 do
    LENGTH_BITS[i] = i < 8 and 0 or math.floor(i / 4) - 1
    LENGTHS[i] = base
    base = base + 2 ^ LENGTH_BITS[i]
  end
  LENGTHS[28], LENGTH_BITS[28] = 258, 0
  base = 1
  for i = 0, 29 do
    DISTANCE_BITS[i] = i < 4 and 0 or math.floor(i / 2) - 1
    DISTANCES[i] = base
    base = base + 2 ^ DISTANCE_BITS[i]
  end
end

local FIXED, FIXED_DISTANCES
do
  local lengths = ffi.new("uint8_t[320]")
  for i = 0, 287 do lengths[i] = i < 144 and 8 or i < 256 and 9 or i < 280 and 7 or 8 end
  for i = 288, 319 do lengths[i] = 5 end
  FIXED, FIXED_DISTANCES = table_of(lengths, 0, 288), table_of(lengths, 288, 30)
end

local ORDER = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 }

local function dynamic(input)
  local literals, distances, count = input:bits(5) + 257, input:bits(5) + 1, input:bits(4) + 4
  if literals > 286 or distances > 30 then damaged() end
  local lengths = ffi.new("uint8_t[320]")
  for i = 1, count do lengths[ORDER[i]] = input:bits(3) end
  local codes = table_of(lengths, 0, 19)
  ffi.fill(lengths, 320)
  local i, all = 0, literals + distances
  while i < all do
    local own = symbol(input, codes)
    local value, times = own, 1
    if own == 16 then
      if i == 0 then damaged() end
      value, times = lengths[i - 1], 3 + input:bits(2)
    elseif own == 17 then
      value, times = 0, 3 + input:bits(3)
    elseif own == 18 then
      value, times = 0, 11 + input:bits(7)
    end
    if i + times > all then damaged() end
    for _ = 1, times do
      lengths[i] = value
      i = i + 1
    end
  end
  return table_of(lengths, 0, literals), table_of(lengths, literals, distances)
end

local Output = {}
Output.__index = Output

function Output:room(count)
  local needed = self.count + count
  if needed > self.most then
    error({ outcome = "too_large", refused = ("the compressed body becomes larger than %.0f bytes, which is this server's limit for it"):format(self.most) }, 0)
  end
  if needed <= self.size then return end
  self.size = math.min(math.max(2 * self.size, needed), self.most)
  local larger = ffi.new("uint8_t[?]", self.size)
  ffi.copy(larger, self.bytes, self.count)
  self.bytes = larger
end

local function block(input, output, literals, distances)
  while true do
    local own = symbol(input, literals)
    if own < 256 then
      if output.count == output.size then output:room(1) end
      output.bytes[output.count] = own
      output.count = output.count + 1
    elseif own == 256 then
      return
    else
      own = own - 257
      if own > 28 then damaged() end
      local length = LENGTHS[own] + input:bits(LENGTH_BITS[own])
      own = symbol(input, distances)
      if own > 29 then damaged() end
      local distance = DISTANCES[own] + input:bits(DISTANCE_BITS[own])
      if distance > output.count then damaged() end
      output:room(length)
      local bytes, at = output.bytes, output.count
      for i = at, at + length - 1 do bytes[i] = bytes[i - distance] end
      output.count = at + length
    end
  end
end

local function stored(input, output)
  local skipped = input.have % 8
  input:bits(skipped)
  local count, inverse = input:bits(16), input:bits(16)
  if count ~= 65535 - inverse then damaged() end
  output:room(count)
  while input.have > 0 and count > 0 do
    output.bytes[output.count] = input:bits(8)
    output.count, count = output.count + 1, count - 1
  end
  if input.at + count > input.stop then damaged() end
  ffi.copy(output.bytes + output.count, input.bytes + input.at, count)
  output.count, input.at = output.count + count, input.at + count
end

-- Where the deflated data begin after gzip's header.
local function after_gzip_header(text)
  if #text < 18 or text:byte(1) ~= 31 or text:byte(2) ~= 139 or text:byte(3) ~= 8 then damaged() end
  local flags, at = text:byte(4), 10
  if flags >= 32 then damaged() end
  if band(flags, 4) > 0 then at = at + 2 + (text:byte(at + 1) or 0) + 256 * (text:byte(at + 2) or 0) end
  for _, flag in ipairs({ 8, 16 }) do
    if band(flags, flag) > 0 then
      at = text:find("\0", at + 1, true)
      if not at then damaged() end
    end
  end
  if band(flags, 2) > 0 then at = at + 2 end
  return at
end

-- Return what a text of gzip or deflate (zlib) decompresses to, at most `most` bytes.
return function(text, encoding, most)
  local from, check
  if encoding == "gzip" then
    from, check = after_gzip_header(text), 8
  else
    local first, second = text:byte(1, 2)
    if #text < 6 or first % 16 ~= 8 or (first * 256 + second) % 31 ~= 0 or band(second, 32) > 0 then damaged() end
    from, check = 2, 4
  end
  local bytes = ffi.cast("const uint8_t *", text)
  if from + check > #text then damaged() end
  local input = setmetatable({ bytes = bytes, at = from, stop = #text - check, hold = 0, have = 0 }, Input)
  local size = math.max(1, math.min(most, 4 * #text))
  local output = setmetatable({ bytes = ffi.new("uint8_t[?]", size), size = size, count = 0, most = most }, Output)
  repeat
    local last, kind = input:bits(1), input:bits(2)
    if kind == 0 then
      stored(input, output)
    elseif kind == 1 then
      block(input, output, FIXED, FIXED_DISTANCES)
    elseif kind == 2 then
      block(input, output, dynamic(input))
    else
      damaged()
    end
  until last == 1
  if input.at - math.floor(input.have / 8) ~= input.stop then damaged() end
  local stop = bytes + #text - check
  if encoding == "gzip" then
    local sum = bor(stop[0], lshift(stop[1], 8), lshift(stop[2], 16), lshift(stop[3], 24))
    local length = stop[4] + 256 * stop[5] + 65536 * stop[6] + 16777216 * stop[7]
    if length ~= output.count or sum ~= crc32(output.bytes, output.count) then damaged() end
  else
    local sum = bor(stop[3], lshift(stop[2], 8), lshift(stop[1], 16), lshift(stop[0], 24))
    if sum ~= adler32(output.bytes, output.count) then damaged() end
  end
  return ffi.string(output.bytes, output.count)
end
