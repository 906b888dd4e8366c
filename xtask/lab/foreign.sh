#!/bin/bash
# User-space iSER of others, Debian's builds of libiscsi and tgt:
# foreign.sh TRANSPORT SCENARIO... PROGRAMS is where our programs are.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
url=iser://$there/$iqn
copy_mib=${COPY_MIB:-32}

clean_up() {
	target_gone
	tgt_gone
}

# --- libiscsi at our target ------------------------------------------------

# patient CMD...: up to five times. libiscsi over iSER gives up when a second passes without a completion ("revents is not
# POLLIN": its poll has ended with nothing), which an emulator on a busy machine can need for one step of a login.
patient() {
	local tries=1
	until "$@" >/run/libiscsi.out 2>&1; do
		cat /run/libiscsi.out
		grep -q 'revents is not POLLIN' /run/libiscsi.out || fail "libiscsi: $*"
		[ $tries -lt 5 ] || fail "libiscsi, five times: $*"
		tries=$((tries + 1))
	done
	cat /run/libiscsi.out
}

libiscsi_looks() {
	target_up
	patient iscsi-inq "$url/0"
	grep 'Product' /run/libiscsi.out
	patient iscsi-readcapacity16 "$url/1"
	grep 'Total size:134217728' /run/libiscsi.out
	patient iscsi-inq -e 1 -c 131 "$url/1"
	grep -i 'designator' /run/libiscsi.out
	target_down
	note "INQUIRY, VPD 83h, READ CAPACITY"
}

# --- our initiator at tgt --------------------------------------------------

# iscsi ARGUMENT...: our program.
iscsi() { "$PROGRAMS/iscsi" "$@" --transport "$offers" --initiator-name $initiator --timeout 90; }
tgt_url=iscsi://$there/$iqn/1

tgt_attached() {
	tgt_up iser
	iscsi inquiry $tgt_url | grep -i IET
	iscsi capacity $tgt_url
	head -c "$copy_mib"M /dev/urandom >/run/source
	iscsi copy /run/source $tgt_url --verify
	cmp /run/source <(head -c "$copy_mib"M /run/tgt.disk) || fail "the target's file is not what was written"
	iscsi copy $tgt_url /run/back
	cmp /run/source <(head -c "$copy_mib"M /run/back) || fail "read is not what was written"
	note "$copy_mib MiB there and back"
}

fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
