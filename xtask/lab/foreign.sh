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

libiscsi_looks() {
	target_up
	iscsi-inq "$url/0" | grep 'Product'
	iscsi-readcapacity16 "$url/1" | grep 'Total size:134217728'
	iscsi-inq -e 1 -c 131 "$url/1" | grep -i 'designator'
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
