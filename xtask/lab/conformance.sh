#!/bin/bash
# The datamover's conformance scenarios on the verbs provider, between both ends of the pair:
# conformance.sh TRANSPORT SCENARIO... PROGRAMS/tests has a program for each build of the provider.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

clean_up() { :; }

# passes BUILD: all of its tests, and that they found the device.
passes() {
	ISER_RDMA_ADDRESS=$there timeout 600 "$PROGRAMS/tests/conformance-$1" --nocapture --test-threads 1 >/run/tests.log 2>&1 ||
		{ cat /run/tests.log; fail "conformance over $1"; }
	! grep -q SKIPPED /run/tests.log || { cat /run/tests.log; fail "nothing was run"; }
	note "$(grep -c ' ms  ' /run/tests.log) scenarios passed"
}
verbs() { passes verbs; }
ibverbs() {
	# The one that is linked needs the libraries to start at all.
	ldd "$PROGRAMS/tests/conformance-ibverbs" | grep librdmacm
	passes ibverbs
}

fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
