#!/bin/bash
# Our initiator at our target: pair.sh TRANSPORT SCENARIO...
# PROGRAMS is where our programs are. Each scenario starts a target of its own.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
url=iscsi://$there/$iqn/1
copy_mib=${COPY_MIB:-32}

clean_up() { target_gone; }

# iscsi ARGUMENT...: our program, over what the target offers.
iscsi() { "$PROGRAMS/iscsi" "$@" --transport "$offers" --initiator-name $initiator --timeout 90 --keepalive 2; }

# ended: the target has seen an orderly end of its last session.
ended() { wait_for 10 eval "grep 'session ended' /run/target.log | tail -n 1 | grep end=Closed"; }

login_plain() {
	target_up
	iscsi discover iscsi://$there | grep $iqn
	iscsi ls iscsi://$there --json >/run/ls.json
	[ "$transport" != rxe ] || grep -q '"transport": "iser (rxe' /run/ls.json || { cat /run/ls.json; fail "another transport"; }
	iscsi capacity --json $url | grep 262144
	head -c 1M /dev/urandom >/run/source
	iscsi write $url --lba 2048 --input /run/source
	cmp /run/source <(tail -c +1048577 /run/disk | head -c 1M) || fail "the target's file is not what was written"
	iscsi read $url --lba 2048 --blocks 2048 | cmp - /run/source || fail "read is not what was written"
	ended
	target_down
	note "$(sed -n 's/.*"transport": "\(.*\)".*/\1/p' /run/ls.json | head -n 1), data equal, logged out"
}
login_chap() {
	target_up --chap-user $user --chap-secret $secret
	! iscsi capacity $url || fail "let in without a secret"
	ISCSI_CHAP_SECRET=$secret iscsi capacity $url --chap-user $user
	target_down
}
login_mutual_chap() {
	target_up --chap-user $user --chap-secret $secret --mutual-user $target_user --mutual-secret $target_secret
	export ISCSI_CHAP_SECRET=$secret
	ISCSI_TARGET_CHAP_SECRET=$target_secret iscsi capacity $url --chap-user $user --target-chap-user $target_user
	! ISCSI_TARGET_CHAP_SECRET=something-else iscsi capacity $url --chap-user $user \
		--target-chap-user $target_user || fail "took a target that proved nothing"
	target_down
}
wrong_secret() {
	target_up --chap-user $user --chap-secret $secret
	! ISCSI_CHAP_SECRET=something-else iscsi capacity $url --chap-user $user || fail "a wrong secret was taken"
	ISCSI_CHAP_SECRET=$secret iscsi capacity $url --chap-user $user
	target_down
	note "refused, the next login served"
}
copy() {
	target_up
	head -c 24M /dev/urandom >/run/source
	iscsi copy /run/source $url --verify
	cmp /run/source <(head -c 24M /run/disk) || fail "the target's file is not what was written"
	iscsi copy $url /run/back
	cmp /run/source <(head -c 24M /run/back) || fail "read is not what was written"
	target_down
	note "24 MiB there and back"
}
# Reads and writes at depth 32; the target copies no byte of them for its transport. (What INQUIRY and the like return is
# not in the transport's memory, and comes before the first count.)
bench() {
	target_up
	# The program itself, so that the signal meets it and not a shell around it.
	"$PROGRAMS/iscsi" bench $url --pattern randrw --seconds 300 --destroy-data --transport "$offers" --timeout 90 &
	local bench=$! before moved
	wait_for 20 grep -q 'logged in.*iqn' /run/target.log
	sleep 2
	target_counts
	before=$(counted bounced_bytes) moved=$(($(counted data_in) + $(counted data_out)))
	sleep 4
	target_counts
	[ "$before" = "$(counted bounced_bytes)" ] || fail "the target copied $(($(counted bounced_bytes) - before)) bytes"
	moved=$(($(counted data_in) + $(counted data_out) - moved))
	[ $moved -gt 0 ] || fail "nothing was moved"
	kill $bench
	wait $bench || true # it was interrupted
	target_down
	note "0 of $moved bytes copied for the transport"
}
aborts() {
	target_up
	"$PROGRAMS/examples/cancel" $url "$offers" 6 >/run/cancel.log 2>&1 || { cat /run/cancel.log; fail "cancel"; }
	target_down
	note "$(head -n 1 /run/cancel.log)"
}

# breaking CMD...: breaks the connection while a copy runs; the copy must not notice, but for the time.
breaking() {
	target_up
	head -c "$copy_mib"M /dev/urandom >/run/source
	iscsi copy /run/source $url --verify --queue-depth 4 -v >/run/copy.log 2>&1 &
	local copy=$! start=$SECONDS
	wait_for 20 grep -q 'logged in' /run/copy.log
	sleep 0.3
	kill -0 $copy || fail "the copy was over before the connection broke"
	"$@"
	if ! wait $copy; then
		# A target that restarted with writes in its cache may have lost them, and the copy has to say so; the next one
		# goes through.
		[[ $* = *_target ]] && grep -q 'writes since the last flush may be lost' /run/copy.log ||
			{ cat /run/copy.log; fail "the copy failed"; }
		iscsi copy /run/source $url --verify
	fi
	grep -q 'logging in again' /run/copy.log || fail "the connection did not break"
	cmp /run/source <(head -c "$copy_mib"M /run/disk) || fail "the target's file is not what was written"
	target_down
	note "copy went through in $((SECONDS - start)) s"
}
restart_target() { target_down; sleep 2; target_run; }
kill_target() { kill -9 "$target"; wait "$target" || true; sleep 2; target_run; }
noticed() { grep -q 'logging in again' /run/copy.log; }
cable_pulled() { breaking pull_cable; }
packets_lost() { breaking drop_packets; }
connection_reset() { breaking reset_connection; }
target_restarted() { breaking restart_target; }
target_killed() { breaking kill_target; }

fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
