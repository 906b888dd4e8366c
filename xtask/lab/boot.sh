#!/bin/bash
# Several scripts, one after the other, in one guest: boot.sh SCRIPT TRANSPORT SCENARIO... -- SCRIPT ...
# A line "@@ N" tells the host that what follows is of the N-th. What one leaves undone, the host sees.
scripts=$(dirname "$0")
number=0
while [ $# -gt 0 ]; do
	words=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		words+=("$1")
		shift
	done
	shift
	echo "@@ $number"
	"$scripts/${words[0]}" "${words[@]:1}"
	number=$((number + 1))
done
