#!/usr/bin/env bash
# Three hosts on one machine become a network and talk, two of them behind NATs. `make demo` runs it; it needs Linux and root.
#
#   anna 192.168.1.2 --- home-a, a NAT, 20.1.0.2 ---+
#                                                   +--- internet, with a BitTorrent DHT of its own
#   ben  192.168.2.2 --- home-b, a NAT, 20.2.0.2 ---+
#   cleo 20.3.0.2 ----------------------------------+
#
# Each host and each router is a network namespace, each host with its own state directory. No packet leaves this machine.
# Everything goes away at the end, however it ends.
set -euo pipefail
cd "$(dirname "$0")/.."

say()  { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s%s%s\n' "$green" "$*" "$plain"; }
if [ -t 1 ]; then bold=$'\e[1m' green=$'\e[32m' plain=$'\e[0m'; else bold='' green='' plain=''; fi

[ "$(uname)" = Linux ] || { echo "the demo needs Linux"; exit 1; }
[ "$(id -u)" = 0 ] || { echo "the demo makes network namespaces and so needs root: sudo make demo"; exit 1; }
for tool in ip nft ping go; do command -v "$tool" >/dev/null || { echo "the demo needs the command $tool"; exit 1; }; done
[ -c /dev/net/tun ] || { echo "the demo needs /dev/net/tun"; exit 1; }

hosts="anna ben cleo"
places="$hosts home-a home-b internet"
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
  for h in $places; do
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

# wire HOST DEVICE ADDRESS HOST DEVICE ADDRESS: a wire between two hosts.
wire() {
  ip -n "$run-$1" link add "$2" type veth peer name "$5" netns "$run-$4"
  ip -n "$run-$1" addr add "$3" dev "$2"
  ip -n "$run-$4" addr add "$6" dev "$5"
  ip -n "$run-$1" link set "$2" up
  ip -n "$run-$4" link set "$5" up
}
# forwards HOST: it is a router.
forwards() { on "$1" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'; }

say "Build"
for p in cmd/warren test/copyfile test/netns/dhtswarm; do
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/bin/" "./$p"
done
echo "warren: $(du -h "$dir/bin/warren" | cut -f1)"

say "Three hosts: Anna and Ben at home behind NATs, Cleo on the internet"
for h in $places; do
  ip netns add "$run-$h"
  ip -n "$run-$h" link set lo up
done
n=0
for home in a:anna b:ben; do
  n=$((n + 1)) router=home-${home%:*} host=${home#*:}
  wire "$host" eth0 "192.168.$n.2/24" "$router" inside "192.168.$n.1/24"
  wire "$router" outside "20.$n.0.2/24" internet "$router" "20.$n.0.1/24"
  ip -n "$run-$host" route add default via "192.168.$n.1"
  ip -n "$run-$router" route add default via "20.$n.0.1"
  forwards "$router"
  on "$router" nft -f - <<NFT
table ip nat { chain post { type nat hook postrouting priority srcnat; oifname "outside" masquerade; }; }
table ip filter { chain pass { type filter hook forward priority filter; iifname "outside" ct state new drop; };
                  chain in { type filter hook input priority filter; iifname "outside" ct state new udp dport 1024-65535 drop; }; }
NFT
  echo "$host has 192.168.$n.2, and the internet sees 20.$n.0.2"
done
wire cleo eth0 20.3.0.2/24 internet cleo 20.3.0.1/24
ip -n "$run-cleo" route add default via 20.3.0.1
echo "cleo has 20.3.0.2"
forwards internet
nodes=60
for i in $(seq $nodes); do ip -n "$run-internet" addr add "45.$i.7.1/32" dev lo; done
on internet dhtswarm $nodes 0 > "$dir/dht.log" 2>&1 &
for _ in $(seq 100); do grep -q '^ready' "$dir/dht.log" && break; sleep 0.2; done
for h in $hosts; do
  mkdir -m 700 "$dir/$h"
  printf '[daemon]\ndht_bootstrap = "45.1.7.1:6881"\n' > "$dir/$h/warren.toml"
done
echo "a BitTorrent DHT of $nodes nodes is there too; nothing in it is ours"

say "Anna founds a network and gets a code"
type_on anna warren create home --as anna

code() { on anna warren invite --json | sed -n 's/.*"code": *"\([^"]*\)".*/\1/p'; }
# address HOST: its own IPv4 address inside the network.
address() { on "$1" ip -4 -o addr show dev warren0 | awk '{ sub("/.*", "", $4); print $4 }'; }

say "Ben joins by the code alone: no address in it leads through the NATs, so they meet in the DHT. Then Cleo"
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
type_on ben warren doctor

say "The homes of Anna and Ben lose each other: Cleo relays, sealed, what they say"
on internet nft -f - <<NFT
table ip cut { chain pass { type filter hook forward priority filter;
  ip saddr 20.1.0.2 ip daddr 20.2.0.2 drop; ip saddr 20.2.0.2 ip daddr 20.1.0.2 drop; }; }
NFT
type_on ben ping -n -c 20 -i 0.2 -q "$(address anna)"
type_on ben warren route anna
type_on ben warren map

say "Ben is put out"
type_on anna warren revoke ben
for _ in $(seq 20); do
  on ben ping -q -c 1 -W 1 "$(address cleo)" >/dev/null 2>&1 || { echo "Ben no longer reaches Cleo."; gone=yes; break; }
  sleep 0.1
done
[ "${gone:-}" = yes ]
type_on cleo warren members

say "Done. Everything is removed again."
