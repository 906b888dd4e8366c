#!/bin/bash
# The kernel's initiator at the kernel's target, to tell a fault of the lab from one of ours:
# control.sh TRANSPORT SCENARIO...
. "$(dirname "$0")/lib.sh"

transport=$1
shift

clean_up() {
	iscsiadm -m node -T $iqn --logout 2>/dev/null || true
	iscsiadm -m node -T $iqn -o delete 2>/dev/null || true
}

login_plain() {
	login
	verify "$(disk 0)" 8
	logout
	note "data equal"
}

fio_verify() {
	login
	note "$(fio_mix "$(disk 0)" 5)"
	logout
}

fabric_up "$transport"
lio_up "$transport"
initiator_start
for name in "$@"; do scenario "$name" "${name//-/_}"; done
