-- A name for an event's numbers: of the length, both ends and slices between, so that its cost does not grow.
--
-- FNV-1a over 64-bit words (http://www.isthe.com/chongo/tech/comp/fnv). It distinguishes a repeated event from
-- others; it does not withstand a client that wants to be mistaken, who could as well change a number.

local ffi = require("ffi")
local bit = require("bit")

local ENDS, SLICE, SLICES = 1024, 64, 32
local PRIME = 0x100000001b3ULL
local word = ffi.typeof("const uint64_t *")

local function mix(hash, text)
  local words = ffi.cast(word, text)
  for i = 0, math.floor(#text / 8) - 1 do
    hash = bit.bxor(hash, words[i]) * PRIME
    hash = bit.bxor(hash, bit.rshift(hash, 29))
  end
  for i = #text - #text % 8 + 1, #text do hash = bit.bxor(hash, text:byte(i)) * PRIME end
  return hash
end

return function(body, from, bytes)
  local hash = bit.bxor(0xcbf29ce484222325ULL, ffi.cast("uint64_t", bytes)) * PRIME
  if bytes <= 2 * ENDS + SLICE * SLICES then
    if bytes > 0 then hash = mix(hash, body:getBytes(from, bytes)) end
  else
    hash = mix(hash, body:getBytes(from, ENDS))
    local step = math.floor((bytes - 2 * ENDS) / SLICES)
    for i = 0, SLICES - 1 do hash = mix(hash, body:getBytes(from + ENDS + i * step, SLICE)) end
    hash = mix(hash, body:getBytes(from + bytes - ENDS, ENDS))
  end
  return bit.tohex(hash)
end
