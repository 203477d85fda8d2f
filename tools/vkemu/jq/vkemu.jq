# Recipes for the events of a vkemu run, for those who have jq and nothing else:
#
#   jq -L $(vkemu log shipped --jq) -c 'include "vkemu"; page(12)' runs/latest/events.ndjson
#
# Each takes one event at a time, except those that say they take the whole run (jq -n, inputs).

# Bits of a host PTE.
def pte_valid: . % 2 == 1;
def pte_frame: if pte_valid then (. / 4096 | floor) % 1099511627776 else null end;

def hex: if . < 16 then "0123456789abcdef"[.:. + 1]
         else ((. / 16 | floor) | hex) + ((. % 16) | hex) end;

# What happened to a frame: its own events and the PTEs that lead to it.
def page($pfn):
  select(.pfn == $pfn or .src == $pfn or .dst == $pfn
         or (.event == "pte.write"
             and ((.old | pte_frame) == $pfn or (.new | pte_frame) == $pfn)));

# What happened to a virtual address, INVALs and interlocks over it included.
def at($va):
  select((.va != null and .va <= $va and $va < .va + 4096)
         or (.start != null and .start <= $va and $va < .end));

def actor($name): select(.actor == $name);
def guest($name): select(.guest == $name);
def event($prefix): select(.event | startswith($prefix));
def between($first; $last): select(.seq >= $first and .seq <= $last);

# One short line an event (jq -r).
def line: "\(.seq)\t\(.actor)\t\(.event)\t"
  + (del(.seq, .t, .ts, .run, .step, .actor, .cpu, .guest, .event, .level, .vc)
     | to_entries | map("\(.key)=\(.value)") | join(" "));

# The whole run (jq -n): how often each event happened.
def counts: reduce inputs as $e ({}; .[$e.event] += 1)
  | to_entries | sort_by(-.value)[] | "\(.value)\t\(.key)";

# The whole run (jq -n): every INVAL with its width, in events and virtual ns.
def invals: foreach inputs as $e ({open: {}};
    ("\($e.actor) \($e.pmap) \($e.start)") as $key
    | if $e.event == "inval.begin" then .open[$key] = $e | .done = null
      elif $e.event == "inval.end" and .open[$key] != null then
        .done = {actor: $e.actor, pmap: $e.pmap, start: $e.start, end: $e.end,
                 seq: .open[$key].seq, width: ($e.seq - .open[$key].seq),
                 ns: ($e.t - .open[$key].t)} | del(.open[$key])
      else .done = null end;
    select(.done != null) | .done);

# The whole run (jq -n): frames freed while a host PTE still maps them.
def freed_while_mapped: foreach inputs as $e ({ptes: {}};
    .found = null
    | if $e.event == "pte.write" then
        ("\($e.pmap) \($e.va)") as $pte
        | if ($e.new | pte_valid) then .ptes[$pte] = ($e.new | pte_frame)
          else del(.ptes[$pte]) end
      elif $e.event == "page.free" then
        [.ptes | to_entries[] | select(.value == $e.pfn) | .key] as $live
        | if ($live | length) > 0 then .found = {seq: $e.seq, pfn: $e.pfn, ptes: $live} else . end
      else . end;
    select(.found != null) | .found);
