#!/bin/bash
# Our initiator at the kernel's target: attach.sh TRANSPORT SCENARIO...
# PROGRAMS is where our programs are.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

url=iscsi://$there/$iqn/0
size=67108864
copy_mib=${COPY_MIB:-32}

# What our initiator uses: the kernel's device, or iWARP without one.
case $transport in
rxe) how=rdma ;;
siw) how=iwarp ;;
*) how=$transport ;;
esac

# iscsi ARGUMENT...: our program.
iscsi() { "$PROGRAMS/iscsi" "$@" --transport $how --initiator-name "$name_here" --timeout 90 --keepalive 2; }
name_here=$initiator

# grants LEVEL CONNECTIONS: under another name, as LIO keeps to what it grants a name first.
grants() {
	lio_recovery "$1" "$2"
	name_here=$initiator:level-$1
}
# granted LEVEL: what the log of the copy says.
granted() { grep -q "error_recovery_level=$1" /run/copy.log || { cat /run/copy.log; fail "LIO granted less"; }; }

clean_up() {
	lio_auth none
	lio_recovery 0 1
}

# both SIZE_MIB [OPTION]...: a copy to the LUN and back; the file behind LIO's disk is the judge.
both() {
	local mib=$1
	shift
	head -c "${mib}M" /dev/urandom >/run/source
	iscsi copy /run/source $url --verify "$@"
	cmp /run/source <(head -c "${mib}M" /run/lio.disk) || fail "the target's file is not what was written"
	iscsi copy $url /run/back "$@"
	cmp /run/source <(head -c "${mib}M" /run/back) || fail "read is not what was written"
	rm /run/source /run/back
}

discover() { iscsi discover iscsi://$there | grep $iqn; }
ls_luns() { iscsi ls iscsi://$there | grep 64 >/dev/null; }
inquiry() {
	iscsi inquiry $url | grep LIO-ORG
	local page
	for page in 0x00 0x80 0x83 0xb0 0xb1 0xb2; do iscsi inquiry $url --vpd $page; done
	note "standard data and six VPD pages"
}
capacity() { iscsi capacity --json $url | grep -A9 -B9 131072; }
copy() {
	both 24
	note "24 MiB there and back"
}
read_write() {
	head -c 1M /dev/urandom >/run/source
	iscsi write $url --lba 2048 --input /run/source
	cmp /run/source <(tail -c +1048577 /run/lio.disk | head -c 1M) || fail "the target's file is not what was written"
	iscsi read $url --lba 2048 --blocks 2048 | cmp - /run/source || fail "read is not what was written"
	! iscsi read $url --lba $((size / 512)) --blocks 1 >/dev/null || fail "read beyond the end"
}
login_chap() {
	lio_auth chap
	! iscsi capacity $url || fail "let in without a secret"
	ISCSI_CHAP_SECRET=$secret iscsi capacity $url --chap-user $user
}
login_mutual_chap() {
	lio_auth mutual
	export ISCSI_CHAP_SECRET=$secret
	ISCSI_TARGET_CHAP_SECRET=$target_secret iscsi capacity $url --chap-user $user --target-chap-user $target_user
}
# The last scenario: over RDMA, LIO does not notice that an initiator leaves during login, and lets nobody in until
# that login's 15 seconds are over ("iSCSI Login timeout" in its log).
target_unproven() {
	lio_auth mutual
	export ISCSI_CHAP_SECRET=$secret
	! ISCSI_TARGET_CHAP_SECRET=something-else iscsi capacity $url --chap-user $user \
		--target-chap-user $target_user || fail "took a target that proved nothing"
}
digests() { both 8 --header-digest --data-digest; }
bench() {
	local pattern result=
	for pattern in randread randwrite; do
		iscsi bench $url --pattern $pattern --seconds 3 --destroy-data --json >/run/bench.json
		result+="$pattern $(sed -n 's/.*"iops": *\([0-9]*\).*/\1/p' /run/bench.json | head -n 1) IOPS "
	done
	note "$result"
}
# Commands cancelled on their way: the kernel's log tells of the ABORT TASK requests that it got.
aborts() {
	local count
	"$PROGRAMS/examples/cancel" $url "$how" 6 >/run/cancel.log 2>&1 || { cat /run/cancel.log; fail "cancel"; }
	count=$(dmesg | grep -c 'ABORT_TASK: ' || true)
	[ "$count" -gt 0 ] || fail "LIO saw no ABORT TASK"
	note "$(head -n 1 /run/cancel.log); LIO tells of $count"
}

# Of the copy below.
options=()

# breaking CMD...: breaks the connection while a copy runs; the copy must not notice, but for the time.
breaking() {
	head -c "$copy_mib"M /dev/urandom >/run/source
	iscsi copy /run/source $url --verify --queue-depth 4 -v "${options[@]}" >/run/copy.log 2>&1 &
	local copy=$! start=$SECONDS
	wait_for 20 grep -q 'logged in' /run/copy.log
	sleep 0.3
	kill -0 $copy || fail "the copy was over before the connection broke"
	"$@"
	wait $copy || { cat /run/copy.log; fail "the copy failed"; }
	came_back || { cat /run/copy.log; fail "the connection did not break"; }
	cmp /run/source <(head -c "$copy_mib"M /run/lio.disk) || fail "the target's file is not what was written"
	note "copy went through in $((SECONDS - start)) s"
}
loss='logging in again|ConnectionEnded'
noticed() { grep -Eq "$loss" /run/copy.log; }
# came_back: the log tells of a connection lost, and of a login after that.
came_back() { sed -En "/$loss/,\$p" /run/copy.log | grep 'logged in' >/dev/null; }
# delayed COUNT [OPTION]...: a copy there and back over a slow and lossy line and COUNT connections.
delayed() {
	delay_packets
	both 4 --queue-depth 8 -v "${@:2}" >/run/copy.log 2>&1 &
	local copies=$!
	wait_for 20 carrying "$1"
	wait $copies || { cat /run/copy.log; fail "the copy failed"; }
	hurry_packets
	note "4 MiB there and back, connections: $1, packets lost: $lost, logins again: $(grep -c 'logging in again' /run/copy.log || true)"
}
# carrying COUNT: that many connections have sent a tenth of a megabyte or more, each.
carrying() {
	[ "$(ss -Htin state established dst $there dport = $lio_port | grep -c 'bytes_sent:[0-9]\{6,\}')" = "$1" ]
}
packets_delayed() { delayed 1; }
cable_pulled() { breaking pull_cable; }
packets_lost() { breaking drop_packets; }
connection_reset() { breaking reset_connection; }
target_restarted() {
	restart_lio() { echo 0 >"$tpg/enable"; sleep 3; echo 1 >"$tpg/enable"; }
	breaking restart_lio
}

four=(--error-recovery-level 2 --connections 4 --header-digest --data-digest)
level_2() {
	grants 2 4
	both 16 "${four[@]}" -v >/run/copy.log 2>&1 &
	local copies=$!
	wait_for 20 carrying 4
	wait $copies || { cat /run/copy.log; fail "the copy failed"; }
	granted 2
	note "16 MiB there and back, data on each of four connections"
}
level_2_packets_delayed() {
	grants 2 4
	delayed 4 "${four[@]}"
	granted 2
}
# Data of reads that TCP takes for whole and their digest does not: they are asked for again (SNACK) without a break, but the last
# of a read, which LIO does not send again: see the table's limits.
level_1_data_spoiled() {
	local breaks
	grants 1 1
	spoil_data
	both 4 --queue-depth 8 -v --error-recovery-level 1 --header-digest --data-digest >/run/copy.log 2>&1 &
	wait $! || { cat /run/copy.log; fail "the copy failed"; }
	spare_data
	granted 1
	breaks=$(grep -c 'logging in again' /run/copy.log || true)
	[ "$spoiled" -gt $((2 * breaks)) ] || fail "a break for almost every piece: $spoiled pieces, $breaks breaks"
	note "4 MiB there, 64 back, pieces spoiled: $spoiled, logins again: $breaks"
}
# recovering CMD...: breaking at level 1, with digests. With several connections, or at level 2, it would break the guest:
# see the table's limits.
recovering() {
	grants 1 1
	options=(--error-recovery-level 1 --header-digest --data-digest)
	breaking "$@"
	granted 1
}
level_1_cable_pulled() { recovering pull_cable; }
level_1_packets_lost() { recovering drop_packets; }
level_1_connection_reset() { recovering reset_connection; }

fabric_up "$transport"
lio_up "$transport"
for name in "$@"; do
	function=${name//-/_}
	scenario "$name" "${function/#ls/ls_luns}"
done
