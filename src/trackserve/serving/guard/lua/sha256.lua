-- SHA-256 of a short text, in hexadecimal. Source: FIPS 180-4.

local bit = require("bit")
local band, bnot, bxor, ror, shr, tobit = bit.band, bit.bnot, bit.bxor, bit.ror, bit.rshift, bit.tobit

-- The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
local K = {}
do
  local primes, candidate = {}, 2
  while #primes < 64 do
    local prime = true
    for _, p in ipairs(primes) do
      if candidate % p == 0 then prime = false break end
    end
    if prime then primes[#primes + 1] = candidate end
    candidate = candidate + 1
  end
  for i, p in ipairs(primes) do
    local root = p ^ (1 / 3)
    root = root - (root * root * root - p) / (3 * root * root) -- one Newton step
    K[i] = tobit(math.floor(root % 1 * 2 ^ 32))
  end
end

local function word(text, at)
  local a, b, c, d = text:byte(at, at + 3)
  return tobit(((a * 256 + b) * 256 + c) * 256 + d)
end

return function(text)
  local zeros = (55 - #text) % 64
  local bits = #text * 8
  local padded = text .. "\128" .. ("\0"):rep(zeros + 4)
    .. string.char(shr(bits, 24) % 256, shr(bits, 16) % 256, shr(bits, 8) % 256, bits % 256)
  local h = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }
  local w = {}
  for block = 1, #padded, 64 do
    for i = 1, 16 do w[i] = word(padded, block + 4 * (i - 1)) end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), shr(x, 3))
      local s1 = bxor(ror(y, 17), ror(y, 19), shr(y, 10))
      w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
    end
    local a, b, c, d, e, f, g, last = unpack(h)
    for i = 1, 64 do
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
      local choice = bxor(band(e, f), band(bnot(e), g))
      local t1 = tobit(last + s1 + choice + K[i] + w[i])
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
      local majority = bxor(band(a, b), band(a, c), band(b, c))
      last, g, f, e = g, f, e, tobit(d + t1)
      d, c, b, a = c, b, a, tobit(t1 + s0 + majority)
    end
    local sums = { a, b, c, d, e, f, g, last }
    for i = 1, 8 do h[i] = tobit(h[i] + sums[i]) end
  end
  for i = 1, 8 do h[i] = bit.tohex(h[i]) end
  return table.concat(h)
end
