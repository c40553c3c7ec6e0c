-- JSON read with bounds on everything: depth, members, length of strings. Source: RFC 8259.
--
-- Lists of numbers under the key `data` are counted and not kept, so a large event costs one pass over its
-- bytes and no memory.

local ffi = require("ffi")

local json = {}

local DEEPEST = 16 -- of braces and brackets; a request needs five
local LONGEST = 1024 -- bytes of a string
local MOST = 2000 -- values that are kept

local function refuse(sentence) error({ refused = sentence }, 0) end

local QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
local OPEN_LIST, CLOSE_LIST, OPEN_MAP, CLOSE_MAP = 91, 93, 123, 125

-- Which bytes a number is made of, and which are white space.
local IN_NUMBER, SPACE = ffi.new("uint8_t[256]"), ffi.new("uint8_t[256]")
for byte in ("0123456789+-.eE"):gmatch(".") do IN_NUMBER[byte:byte()] = 1 end
for byte in (" \t\r\n"):gmatch(".") do SPACE[byte:byte()] = 1 end

-- What a table was in the JSON: a list, an input's data that were counted, else a map.
local List, Counted = {}, {}

local Parser = {}
Parser.__index = Parser

function Parser:wrong(what)
  refuse("the JSON is not valid at byte " .. self.at .. ": " .. what)
end

function Parser:skip_space()
  local bytes, at, stop = self.bytes, self.at, self.stop
  while at < stop and SPACE[bytes[at]] == 1 do at = at + 1 end
  self.at = at
  if at == stop then return -1 end
  return bytes[at]
end

function Parser:string()
  local bytes, stop = self.bytes, self.stop
  local from = self.at + 1
  local at = from
  local escaped = false
  while true do
    if at >= stop then self:wrong("a string has no end") end
    local byte = bytes[at]
    if byte == QUOTE then break end
    if byte < 32 then self:wrong("a control character in a string") end
    if byte == BACKSLASH then
      escaped = true
      at = at + 1
    end
    at = at + 1
    if at - from > LONGEST then refuse("a string of the JSON has more than " .. LONGEST .. " bytes") end
  end
  self.at = at + 1
  local text = ffi.string(bytes + from, at - from)
  -- Texts that matter here have no escapes; those that do can equal none of them.
  if escaped then text = "\\" .. text end
  return text
end

-- Whether a text is a number of JSON: no leading zeros, digits around a point.
local function is_number(text)
  local whole, rest = text:match("^-?(%d+)(.*)$")
  if not whole or (#whole > 1 and whole:sub(1, 1) == "0") then return false end
  rest = rest:gsub("^%.%d+", "", 1):gsub("^[eE][+-]?%d+", "", 1)
  return rest == ""
end

function Parser:number()
  local bytes, at, stop = self.bytes, self.at, self.stop
  local from = at
  while at < stop and IN_NUMBER[bytes[at]] == 1 do at = at + 1 end
  self.at = at
  if at - from > 64 then self:wrong("a number has more than 64 characters") end
  local text = ffi.string(bytes + from, at - from)
  if is_number(text) then return tonumber(text) end
  self:wrong("expected a value")
end

local WORDS = { { "true", true }, { "false", false }, { "null", nil } }

function Parser:value(depth)
  self.left = self.left - 1
  if self.left < 0 then refuse("the JSON has more than " .. MOST .. " values beside an input's data") end
  local byte = self:skip_space()
  if byte == QUOTE then return self:string() end
  if byte == OPEN_MAP then return self:map(depth + 1) end
  if byte == OPEN_LIST then return self:list(depth + 1) end
  if byte >= 0 and IN_NUMBER[byte] == 1 then return self:number() end
  for _, word in ipairs(WORDS) do
    if self.stop - self.at >= #word[1] and ffi.string(self.bytes + self.at, #word[1]) == word[1] then
      self.at = self.at + #word[1]
      return word[2]
    end
  end
  self:wrong("expected a value")
end

local function check_depth(depth)
  if depth > DEEPEST then refuse("the JSON is nested deeper than " .. DEEPEST .. " levels") end
end

function Parser:list(depth)
  check_depth(depth)
  local found = setmetatable({}, List)
  self.at = self.at + 1
  if self:skip_space() == CLOSE_LIST then
    self.at = self.at + 1
    return found
  end
  while true do
    local value = self:value(depth)
    found[#found + 1] = value == nil and json.null or value
    local byte = self:skip_space()
    self.at = self.at + 1
    if byte == CLOSE_LIST then return found end
    if byte ~= COMMA then self:wrong("expected , or ]") end
  end
end

function Parser:map(depth)
  check_depth(depth)
  local found = {}
  self.at = self.at + 1
  if self:skip_space() == CLOSE_MAP then
    self.at = self.at + 1
    return found
  end
  while true do
    if self:skip_space() ~= QUOTE then self:wrong("expected a name in quotes") end
    local name = self:string()
    if name:byte() == BACKSLASH then refuse("a name in the JSON is written with escapes; write it as it is") end
    if found[name] ~= nil then refuse("the JSON has the name '" .. json.plain(name) .. "' twice in one place") end
    if self:skip_space() ~= COLON then self:wrong("expected :") end
    self.at = self.at + 1
    if name == "data" and self:skip_space() == OPEN_LIST then
      found.data = self:count(depth)
    else
      local value = self:value(depth)
      found[name] = value == nil and json.null or value
    end
    local byte = self:skip_space()
    self.at = self.at + 1
    if byte == CLOSE_MAP then return found end
    if byte ~= COMMA then self:wrong("expected , or }") end
  end
end

-- Count the numbers of nested lists: one pass, a few states, no table.
function Parser:count(depth)
  local bytes, at, stop = self.bytes, self.at, self.stop
  local open, numbers = 0, 0
  local may_value = true -- whether a value may come next; else a comma or a bracket
  local may_close = false
  while at < stop do
    local byte = bytes[at]
    if IN_NUMBER[byte] == 1 then
      if not may_value then break end
      local from, first, points, powers = at, byte, 0, 0
      repeat
        if byte == 46 then points = points + 1 elseif byte == 69 or byte == 101 then powers = powers + 1 end
        at = at + 1
        byte = at < stop and bytes[at] or 0
      until IN_NUMBER[byte] == 0
      -- A number begins with a digit or a minus; the server's parser judges the rest.
      if at - from > 64 or points > 1 or powers > 1 or not (first == 45 or (first >= 48 and first <= 57)) then
        self.at = from
        self:wrong("expected a number")
      end
      numbers = numbers + 1
      may_value, may_close = false, true
    elseif byte == COMMA then
      if may_value then break end
      may_value, may_close = true, false
      at = at + 1
    elseif byte == OPEN_LIST then
      if not may_value then break end
      open = open + 1
      check_depth(depth + open)
      may_value, may_close = true, true
      at = at + 1
    elseif byte == CLOSE_LIST then
      if not may_close then break end
      open = open - 1
      at = at + 1
      if open == 0 then
        self.at = at
        return setmetatable({ count = numbers }, Counted)
      end
      may_value, may_close = false, true
    elseif SPACE[byte] == 1 then
      at = at + 1
    else
      break
    end
  end
  self.at = at
  self:wrong("an input's data are lists of numbers")
end

json.null = setmetatable({}, { __tostring = function() return "null" end })

function json.is_list(value) return getmetatable(value) == List end

function json.is_map(value) return type(value) == "table" and getmetatable(value) == nil end

-- How many numbers an input's data are, nil if it came without.
function json.count(value) return getmetatable(value) == Counted and value.count or nil end

-- A text without anything that a log or a terminal would act on.
function json.plain(text)
  return (tostring(text):sub(1, 80):gsub("[^%w _.,:/+-]", "?"))
end

-- Parse a text that is JSON as a whole, with at most a number of values; raises { refused = sentence } if it isn't.
-- Maps become tables by name, lists tables from 1, an input's data a count: see is_map, is_list, count.
function json.read(text, most)
  local parser = setmetatable({
    text = text, -- keeps the bytes alive
    bytes = ffi.cast("const uint8_t *", text),
    at = 0,
    stop = #text,
    left = most or MOST,
  }, Parser)
  local found = parser:value(0)
  if parser:skip_space() ~= -1 then parser:wrong("something follows its end") end
  return found
end

return json
