#!/bin/bash
# The workspace's user-space iWARP against the kernel's siw: iwarp-rping.sh RPING
# RPING is the example of that name of the crate iwarp (examples/rping.rs). It
# meets librdmacm's rping, which runs over siw, in both roles: CRC on and off,
# peer to peer, small and large data. MPA revision 1 does not say how many RDMA
# Reads a peer may have outstanding, and siw then allows none, so that rping
# cannot work: there rdma_server and rdma_client exchange a message each way. With
# PCAP, everything is captured there.
. "$(dirname "$0")/common.sh"

ours=$1 pcap=${2-}
rdma_pair siw
[ -z "$pcap" ] || capture_start va

# serve CMD...: starts a server on port 7174 and waits until it listens.
serve() {
	"$@" >/run/server.log 2>&1 &
	server=$!
	wait_for 20 grep -q ':1C06 00000000:0000 0A' /proc/net/tcp
}

# meet NAME CMD...: runs a client; it and the server must both succeed.
meet() {
	step "$1"
	timeout 60 "${@:2}" >/run/client.log 2>&1 || {
		cat /run/client.log /run/server.log
		fail "client: $1"
	}
	wait $server || { cat /run/client.log /run/server.log; fail "server: $1"; }
	grep -hE 'established|rounds|Request' /run/client.log /run/server.log || true
}

for options in "" "--no-crc" "--peer-to-peer" "-S 65000" "--no-crc -S 65000"; do
	serve timeout 60 rping -s -a 10.9.9.2 -v -S 65000
	# shellcheck disable=SC2086  # several options
	meet "our client, siw server, ${options:-defaults}" "$ours" -c -a 10.9.9.2 -C 5 $options
	[ "$(grep -c 'server ping data: rdma-ping-' /run/server.log)" = 5 ] || fail "rping did not read the pings"
done

for options in "" "-1" "-1 --no-crc"; do
	serve timeout 60 rdma_server -p 7174
	# shellcheck disable=SC2086
	meet "our client, siw server, one message, ${options:-defaults}" "$ours" --hello -c -a 10.9.9.2 $options
	grep -q 'rdma_server: end 0' /run/server.log || { cat /run/server.log; fail "rdma_server"; }
done

for options in "" "--no-crc"; do
	for size in 64 65000; do
		# shellcheck disable=SC2086
		serve timeout 60 "$ours" -s -a 10.9.9.2 $options
		# -V: rping compares what it sent with what came back.
		meet "siw client, our server, ${options:-defaults}, $size octets" rping -c -a 10.9.9.2 -C 5 -S $size -V
		grep -qx '5 rounds' /run/server.log || fail "not 5 rounds"
	done
done
[ -z "$pcap" ] || capture_stop "$pcap"
pass "iwarp rping"
