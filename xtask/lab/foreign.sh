#!/bin/bash
# User-space iSER of others, through Debian's builds of libiscsi (also as QEMU uses it) and tgt:
# foreign.sh TRANSPORT SCENARIO... PROGRAMS is where our programs are.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
url=iser://$there/$iqn

clean_up() {
	target_gone
	[ ! -e /run/tgtd.pid ] || kill -9 "$(cat /run/tgtd.pid)" 2>/dev/null || true
	rm -f /run/tgtd.pid
}

# --- libiscsi at our target ------------------------------------------------

libiscsi_looks() {
	target_up
	iscsi-inq "$url/0" | grep 'Product'
	iscsi-readcapacity16 "$url/1" | grep 'Total size:134217728'
	iscsi-inq -e 1 -c 131 "$url/1" | grep -i 'designator'
	target_down
	note "INQUIRY, VPD 83h, READ CAPACITY"
}

# QEMU's disk over libiscsi: an image is written, and read again.
qemu_copies() {
	target_up
	head -c 16M /dev/urandom >/run/source
	timeout 120 qemu-img convert -n -f raw -O raw /run/source "$url/1"
	cmp /run/source <(head -c 16M /run/disk) || fail "the target's file is not what was written"
	timeout 120 qemu-img convert -f raw -O raw "$url/1" /run/back
	cmp /run/source <(head -c 16M /run/back) || fail "read is not what was written"
	target_down
	note "16 MiB there and back"
}

# --- our initiator at tgt --------------------------------------------------

# iscsi ARGUMENT...: our program.
iscsi() { "$PROGRAMS/iscsi" "$@" --transport "$offers" --initiator-name $initiator --timeout 90; }
tgt_url=iscsi://$there/$iqn/1

# tgt_up [iscsi|iser]: a 64 MiB file as LUN 1. tgt listens on both transports, on iSER's port always at 3260.
tgt_up() {
	local lld=$1
	mkdir -p /run/tgtd
	tgtd -f --iscsi portal=127.0.0.1:3999 >/run/tgtd.log 2>&1 &
	say $! >/run/tgtd.pid
	truncate -s 64M /run/tgt.disk
	wait_for 20 tgtadm --lld "$lld" -o new -m target --tid 1 -T $iqn
	tgtadm --lld "$lld" -o new -m logicalunit --tid 1 --lun 1 -b /run/tgt.disk
	tgtadm --lld "$lld" -o bind -m target --tid 1 -I ALL
	# Over iSER the rule for addresses never matches; only one by name lets anybody in.
	tgtadm --lld "$lld" -o bind -m target --tid 1 -Q $initiator
}

tgt_attached() {
	tgt_up iser
	iscsi inquiry $tgt_url | grep -i IET
	iscsi capacity $tgt_url
	head -c 32M /dev/urandom >/run/source
	iscsi copy /run/source $tgt_url --verify
	cmp /run/source <(head -c 32M /run/tgt.disk) || fail "the target's file is not what was written"
	iscsi copy $tgt_url /run/back
	cmp /run/source <(head -c 32M /run/back) || fail "read is not what was written"
	note "32 MiB there and back"
}

fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
