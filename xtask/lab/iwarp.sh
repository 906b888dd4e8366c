#!/bin/bash
# Our user-space iWARP (example rping of the crate iwarp) and the kernel's siw, through librdmacm's programs:
# iwarp.sh siw SCENARIO... PROGRAMS is where our programs are.
. "$(dirname "$0")/lib.sh"

transport=$1
ours=$PROGRAMS/examples/rping
shift

clean_up() { [ ! -e /run/server.pid ] || kill -9 "$(cat /run/server.pid)" 2>/dev/null || true; rm -f /run/server.pid; }

# serve CMD...: starts a server on port 7174 (1C06) and waits until it listens.
serve() {
	timeout 60 "$@" >/run/server.log 2>&1 &
	server=$!
	say $server >/run/server.pid
	wait_for 20 grep -q ':1C06 00000000:0000 0A' /proc/net/tcp
}

# meet CMD...: runs a client; both ends must succeed.
meet() {
	timeout 60 "$@" >/run/client.log 2>&1 || { cat /run/client.log /run/server.log; fail "client: $*"; }
	wait "$server" || { cat /run/client.log /run/server.log; fail "server of: $*"; }
}

our_client() {
	local options
	for options in "" --no-crc --peer-to-peer "-S 65000" "--no-crc -S 65000"; do
		serve rping -s -a $there -v -S 65000
		# shellcheck disable=SC2086  # several options
		meet "$ours" -c -a $there -C 5 $options
		[ "$(grep -c 'server ping data: rdma-ping-' /run/server.log)" = 5 ] || fail "rping did not read the pings"
	done
	note "CRC on and off, peer to peer, 64 and 65000 octets"
}

# MPA revision 1 does not say how many RDMA Reads a peer may have outstanding, and siw then allows none, so that
# rping cannot work: rdma_server and rdma_client exchange a message each way.
one_message() {
	local options
	for options in "" -1 "-1 --no-crc"; do
		serve rdma_server -p 7174
		# shellcheck disable=SC2086
		meet "$ours" --hello -c -a $there $options
		grep -q 'rdma_server: end 0' /run/server.log || { cat /run/server.log; fail "rdma_server"; }
	done
	note "MPA revisions 1 and 2"
}

our_server() {
	local options size
	for options in "" --no-crc; do
		for size in 64 65000; do
			# shellcheck disable=SC2086
			serve "$ours" -s -a $there $options
			# -V: rping compares what it sent with what came back.
			meet rping -c -a $there -C 5 -S $size -V
			grep -qx '5 rounds' /run/server.log || fail "not 5 rounds"
		done
	done
	note "CRC on and off, 64 and 65000 octets"
}

fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
