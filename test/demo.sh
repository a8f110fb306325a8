#!/usr/bin/env bash
# Three hosts on one machine become a network and talk. `make demo` runs it; it needs Linux and root.
#
#   anna 192.0.2.1    ben 192.0.2.2    cleo 192.0.2.3
#     |                 |                |
#     +-----------------+----------------+------ lan
#
# Each host is a network namespace with its own state directory. Everything goes away at the end, however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

say()  { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s%s%s\n' "$green" "$*" "$plain"; }
if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' plain=$'\e[0m'; else bold='' green='' plain=''; fi

[ "$(uname)" = Linux ] || { echo "the demo needs Linux"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces and so needs root: sudo make demo"; exit 1; }
for tool in ip ping go; do command -v "$tool" >/dev/null || { echo "the demo needs the command $tool"; exit 1; }; done
[ -c /dev/net/tun ] || { echo "the demo needs /dev/net/tun"; exit 1; }

hosts="anna ben cleo"
run=warren-demo-$$
dir=$(mktemp -d "/tmp/$run.XXXX")
cleanup() {
  status=$?
  trap - EXIT INT TERM
  if [ $status != 0 ]; then
    for h in $hosts; do
      [ -f "$dir/$h/daemon.log" ] && { printf '\n-- the log of %s\n' "$h"; tail -n 20 "$dir/$h/daemon.log"; }
    done
  fi
  for h in $hosts lan; do
    if [ -e "/run/netns/$run-$h" ]; then
      ip netns pids "$run-$h" | xargs -r kill -9 2>/dev/null || true
      ip netns del "$run-$h" || true
    fi
  done
  rm -rf "$dir"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# on HOST COMMAND...: run a command on a host; type_on shows it first, as if typed there.
on()      { local h=$1; shift; ip netns exec "$run-$h" env WARREN_STATE="$dir/$h" PATH="$dir/bin:$PATH" "$@"; }
type_on() { local h=$1; shift; show "$h\$ $*"; on "$h" "$@"; }

say "Build"
for p in cmd/warren test/copyfile; do
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/bin/" "./$p"
done
echo "warren: $(du -h "$dir/bin/warren" | cut -f1)"

say "Three hosts on one wire"
ip netns add "$run-lan"
ip -n "$run-lan" link add br0 type bridge
ip -n "$run-lan" link set br0 up
n=0
for h in $hosts; do
  n=$((n + 1))
  ip netns add "$run-$h"
  ip -n "$run-$h" link set lo up
  ip -n "$run-$h" link add eth0 type veth peer name "$h" netns "$run-lan"
  ip -n "$run-lan" link set "$h" master br0 up
  ip -n "$run-$h" addr add "192.0.2.$n/24" dev eth0
  ip -n "$run-$h" link set eth0 up
  echo "$h has 192.0.2.$n"
done

say "Anna founds a network and gets a code"
type_on anna warren create home --as anna

code() { on anna warren invite --json | sed -n 's/.*"code": *"\([^"]*\)".*/\1/p'; }
# address HOST: its own IPv4 address inside the network.
address() { on "$1" ip -4 -o addr show dev warren0 | awk '{ sub("/.*", "", $4); print $4 }'; }

say "Ben and Cleo join, each by one code"
for h in ben cleo; do
  c=$(code)
  start=$(date +%s%N)
  type_on "$h" warren join "$c" --as "$h"
  on "$h" ping -q -c 1 -W 5 "$(address anna)" >/dev/null
  echo "(from the command to the first ping: $(( ($(date +%s%N) - start) / 1000000 )) ms)"
done

say "All reach all"
for from in $hosts; do
  for to in $hosts; do
    [ "$from" = "$to" ] && continue
    rtt=
    for _ in $(seq 50); do # a newcomer is known to all some milliseconds after its join
      rtt=$(on "$from" ping -n -c 1 -W 5 "$(address "$to")" 2>/dev/null | sed -n 's/.*time=//p') && [ -n "$rtt" ] && break
      sleep 0.1
    done
    [ -n "$rtt" ] || { echo "$from does not reach $to"; exit 1; }
    echo "$from -> $to ($(address "$to")): $rtt"
  done
done

say "A file of 64 MiB from Ben to Cleo, through the tunnel"
head -c 64M /dev/urandom > "$dir/file"
on cleo copyfile receive ":7000" "$dir/copy" > "$dir/received" &
receiver=$!
for _ in $(seq 50); do on cleo ss -ltn 2>/dev/null | grep -q ':7000' && break; sleep 0.1; done
type_on ben copyfile send "$(address cleo):7000" "$dir/file"
wait $receiver
cmp "$dir/file" "$dir/copy" && echo "Cleo has the same file."

say "What Anna sees"
type_on anna warren status

say "Ben is put out"
type_on anna warren revoke ben
for _ in $(seq 20); do
  on ben ping -q -c 1 -W 1 "$(address cleo)" >/dev/null 2>&1 || { echo "Ben no longer reaches Cleo."; gone=yes; break; }
  sleep 0.1
done
[ "${gone:-}" = yes ]
type_on cleo warren members

say "Done. Everything is removed again."
