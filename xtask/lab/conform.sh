#!/bin/bash
# iscsi-conform, which shares no code with our stack, judges the kernel's target and the kernel's initiator:
# conform.sh tcp SCENARIO... PROGRAMS is where our programs are; CONFORM_CASES chooses cases for the target.
. "$(dirname "$0")/lib.sh"

scripts=$(realpath "$(dirname "$0")")
drive=$scripts/driven.sh
portal=$there:3262
shift

clean_up() {
	[ ! -e "$tpg" ] || lio_recovery 0 1
	"$drive" after "$portal"
}

# conform TABLE CASES ARGUMENT...: what the peer is known to fail is in the table; the summary is the note.
conform() {
	local table=$scripts/../../kits/conform/expected/$1.toml cases=$2
	shift 2
	"$PROGRAMS/iscsi-conform" "$@" --filter "$cases" --expect "$table" >/run/conform.log 2>&1 || {
		grep -E -A1 '^(fail|error)' /run/conform.log || true
		tail -n 20 /run/conform.log
		fail "$(tail -n 1 /run/conform.log)"
	}
	note "$(grep ' cases: ' /run/conform.log)"
}

# Each case says itself at which level it wants to be, and over how many connections.
target_judged() {
	lio_up tcp
	lio_recovery 2 4
	conform lio "${CONFORM_CASES:-}" target "iscsi://$there/$iqn/0" --dataloss
}

# judged CASES: the initiator. One record for all cases: no second try of a first login, and no waiting for what is lost.
judged() {
	local record=(iscsiadm -m node -T iqn.2026-01.org.example:iscsi-conform -p "$portal")
	initiator_start
	"${record[@]}" >/dev/null || {
		"${record[@]}" -o new
		"${record[@]}" -o update -n node.session.timeo.replacement_timeout -v 1 \
			-n node.session.initial_login_retry_max -v 0 -n node.session.reopen_max -v 1 \
			-n node.session.err_timeo.abort_timeout -v 2 -n node.session.err_timeo.lu_reset_timeout -v 2 \
			-n node.session.err_timeo.tgt_reset_timeout -v 2 -n 'node.conn[0].timeo.login_timeout' -v 4 \
			-n 'node.conn[0].timeo.logout_timeout' -v 2 -n 'node.conn[0].timeo.noop_out_interval' -v 0 \
			-n 'node.conn[0].timeo.noop_out_timeout' -v 0
	}
	conform open-iscsi "$1" initiator --listen "$portal" --answer 2500 --exec "$drive attach {portal}" \
		--exec-read "$drive read {portal}" --exec-write "$drive write {portal}" \
		--exec-discover "$drive discover {portal}" --exec-after "$drive after {portal}"
}
initiator_logins() { judged ilogin-; }
initiator_requests() { judged icommand-; }
initiator_events() { judged iasync-; }
initiator_data() { judged idata-; }
# And digests.
initiator_discovery() { judged idi; }

fabric_up tcp
for name in "$@"; do scenario "$name" "${name//-/_}"; done
