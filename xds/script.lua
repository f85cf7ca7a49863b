-- What Envoy's own filters cannot do: read a request as servers may read it, put headers
-- right, give answers of the policy's own. The route says what is to be done (lua.go).
-- A request that this fails on is denied.

local reading, tests, told = "headgate.reading", "headgate.tests", "headgate"

-- x-forwarded-proto is Envoy's own; what was sent is kept under another name.
local sent = "x-headgate-forwarded-proto"
local function under(name)
  if name == "host" then return ":authority" end
  if name == "x-forwarded-proto" then return sent end
  return name
end

-- sentAs is the name that a header was sent by; nil: it was not sent.
local function sentAs(name)
  if name == "x-forwarded-proto" or name:sub(1, 1) == ":" then return nil end
  if name == sent then return "x-forwarded-proto" end
  return name
end

local function canonical(name) return (name:gsub("_", "-")) end

local function ascii(s)
  return (s:gsub("[\128-\255]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function escaped(s)
  return (s:gsub("[^ -$&-~]", function(c) return string.format("%%%02X", c:byte()) end))
end

-- value of a header, all that were sent joined with commas; nil: there is none.
local function joined(headers, name)
  local value
  local want = under(name)
  for k, v in pairs(headers) do
    if k == want then value = value and value .. "," .. v or v end
  end
  if want == ":authority" and value == "" then return nil end
  return value
end

local function hostsAs(host)
  local list = { ascii(host) }
  local name, port = host, ""
  local at = host:match("^.*():")
  if at and at > (host:match("^.*()%]") or 0) then
    name, port = host:sub(1, at - 1), host:sub(at)
  end
  local bare = name:gsub("%.+$", "")
  if port ~= "" or bare ~= name then
    list[#list + 1] = ascii(bare)
    list[#list + 1] = ascii(bare .. port)
  end
  return list
end

local function pathsAs(path)
  local list = { ascii(path) }
  local q = path:find("?", 1, true)
  local before, query = path, ""
  if q then before, query = path:sub(1, q - 1), path:sub(q) end
  if before:find(";", 1, true) then
    list[2] = ascii(before:gsub(";[^/]*", "") .. query)
  end
  return list
end

local function addTo(map, key, value)
  if not map[key] then map[key] = {} end
  map[key][#map[key] + 1] = value
end

-- read lists what a request may be taken for, for rules that deny.
local function read(handle)
  local headers = handle:headers()
  local values, lists = {}, {}
  for k, v in pairs(headers) do
    local name = sentAs(k)
    if name then
      values[name] = values[name] and values[name] .. "," .. v or v
      local list = canonical(name)
      addTo(lists, list, escaped(v))
      for item in (v .. ","):gmatch("([^,]*),") do
        addTo(lists, list, escaped((item:gsub("^%s+", ""):gsub("%s+$", ""))))
      end
    end
  end
  for name, v in pairs(values) do addTo(lists, canonical(name), escaped(v)) end
  local meta = handle:streamInfo():dynamicMetadata()
  meta:set(reading, "hosts", hostsAs(headers:get(":authority") or ""))
  meta:set(reading, "paths", pathsAs(headers:get(":path") or ""))
  meta:set(reading, "headers", lists)
  meta:set(reading, "read", true)
end

-- put carries out one edit and says what it found.
local function put(headers, e)
  local value = joined(headers, e.name)
  local alike = {}
  for k in pairs(headers) do
    local name = sentAs(k)
    if name and name ~= e.name and canonical(name) == canonical(e.name) then alike[#alike + 1] = k end
  end
  local strict = e.action == "deleted" or e.action == "replaced"
  local double = strict and #alike > 0
  local right = value ~= nil and (e.value == "" or value == e.value)
  if right and not double then return nil end
  local note = "header " .. e.shown .. (double and " has a double" or value and " has another value" or " is missing")
  if e.action == "log" or e.action == "deleted" and not value and not double then return note end
  if strict then
    headers:remove(under(e.name))
    for _, name in ipairs(alike) do headers:remove(name) end
  end
  if e.action ~= "deleted" then headers:add(under(e.name), e.value) end
  return note .. ": " .. e.action
end

local function holds(headers, answers, rule, connect)
  if connect and not rule.connect then return false end
  for _, key in ipairs(rule.tests) do
    if answers[key] ~= "it matches" then return false end
  end
  for _, h in ipairs(rule.headers) do
    local value = joined(headers, h.name)
    if value == nil or h.value ~= "" and value ~= h.value then return false end
  end
  return true
end

-- edit puts headers right by all rules that match the request as it came.
local function edit(handle, direction, rules)
  local headers = handle:headers()
  local meta = handle:streamInfo():dynamicMetadata()
  local answers = meta:get(tests .. "." .. direction) or {}
  local connect = headers:get(":method") == "CONNECT"
  local apply, notes = {}, {}
  for _, rule in ipairs(rules) do
    if holds(headers, answers, rule, connect) then apply[#apply + 1] = rule end
  end
  for _, rule in ipairs(apply) do
    for _, e in ipairs(rule.edits) do notes[#notes + 1] = put(headers, e) end
  end
  for key in pairs(answers) do meta:set(tests .. "." .. direction, key, "") end
  if #notes > 0 then meta:set(told, direction, table.concat(notes, ", ")) end
end

-- remember keeps the head of a request for a tunnel, which is judged again by it.
local function remember(handle)
  local list = {}
  for k, v in pairs(handle:headers()) do
    local name = k:sub(1, 1) == ":" and k or sentAs(k)
    if name then list[#list + 1] = escaped(name) .. "=" .. escaped(v) end
  end
  handle:streamInfo():dynamicMetadata():set(told, "head", list)
end

local function act(handle)
  local todo = handle:filterContext()
  if todo:get("close") and handle:streamInfo():protocol():sub(1, 6) == "HTTP/1" then
    handle:streamInfo():drainConnectionUponCompletion()
  end
  if todo:get("remember") then remember(handle) end
  local rules = todo:get("edits")
  if rules then edit(handle, todo:get("direction"), rules) end
  if todo:get("read") then read(handle) end
  if todo:get("last") and handle:streamInfo():protocol():sub(1, 6) == "HTTP/1" then
    handle:headers():replace("connection", "close")
  end
end

function envoy_on_request(handle)
  local ok, err = pcall(act, handle)
  if not ok then
    handle:logErr("headgate: " .. tostring(err))
    handle:respond({ [":status"] = "403" }, "Access denied\r\n")
  end
end

-- answer gives the client of a denied request what the policy that denied it says.
local function answer(handle)
  local decided = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  if not decided then return end
  for _, direction in ipairs({ "egress", "ingress" }) do
    if decided[direction .. "_enforced_engine_result"] == "denied" or decided[direction .. "_deny_enforced_engine_result"] == "denied" then
      local response = handle:filterContext():get(direction)
      if not response then return end
      local headers = handle:headers()
      if headers:get("grpc-status") then
        headers:replace("grpc-message", response.message)
        return
      end
      headers:replace(":status", response.status)
      local body = handle:body()
      if body then headers:replace("content-length", tostring(body:setBytes(response.body))) end
      return
    end
  end
end

function envoy_on_response(handle)
  if handle:filterContext():get("answers") then answer(handle) end
end
