#!/bin/bash
# Targets side by side under the kernel's initiator: compare.sh TRANSPORT SCENARIO...
# PROGRAMS is where our programs are. All serve a file in memory; the rounds are interleaved, so that whatever else the
# machine does meets all of them. The guest's clock counts instructions (see guest.rs): the ratios do not depend on what
# else the machine does.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
lio_port=3262

clean_up() {
	iscsiadm -m node --logoutall=all 2>/dev/null || true
	target_gone
	tgt_gone
}

# attach NAME PORT: logs in to the target of this name.
attach() {
	iscsiadm -m discovery -t sendtargets -p "$there:$2" -I "$iface"
	iscsiadm -m node -T "$1" -p "$there:$2" -I "$iface" --login
	wait_for 30 disk_of "$1" "$3"
}
# disk_of NAME LUN: the block device of that target's LUN.
disk_of() {
	local dir name
	for name in /sys/class/iscsi_session/session*/targetname; do
		[ "$(cat "$name")" = "$1" ] || continue
		for dir in "${name%/targetname}"/device/target*/*:"$2"/block/sd*; do
			[ -e "$dir" ] && say "/dev/${dir##*/}" && return
		done
	done
	return 1
}

# load DEVICE KIND: sets `rate` (operations a second) and `cost` (microseconds of the guest's processor for one, all of
# it: initiator, target and the device between them).
load() {
	local options before after total idle
	case $2 in
	4k-read) options="--rw=randread --bs=4k --iodepth=32" ;;
	4k-write) options="--rw=randwrite --bs=4k --iodepth=32" ;;
	1m-read) options="--rw=read --bs=1m --iodepth=4" ;;
	1m-write) options="--rw=write --bs=1m --iodepth=4" ;;
	esac
	read -ra before < <(head -n 1 /proc/stat)
	# shellcheck disable=SC2086  # several options
	fio --name=load --filename="$1" --direct=1 --ioengine=libaio --size=48m --time_based --runtime=$seconds \
		$options --minimal >/run/fio.out
	read -ra after < <(head -n 1 /proc/stat)
	rate=$(awk -F';' '{ print int($8 + $49) }' /run/fio.out)
	total=$(awk '{ for (n = 2; n <= 9; n++) sum += $n } END { print sum }' <<<"${after[*]}")
	total=$((total - $(awk '{ for (n = 2; n <= 9; n++) sum += $n } END { print sum }' <<<"${before[*]}")))
	idle=$((after[4] + after[5] - before[4] - before[5]))
	cost=$((1000000 * (total - idle) / (total * (rate > 0 ? rate : 1))))
}

# of A B: A as a part of B, two digits.
of() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", b ? a / b : 0 }'; }

compared() {
	lio_up "$transport"
	tgt_up iser
	target_up
	initiator_start
	# Seconds of the guest's clock, which runs a quarter as fast as the host's.
	local seconds=$((${FIO_SECONDS:-15} >= 30 ? FIO_SECONDS / 15 : 1)) rounds=2 who kind round rate cost before after summary=
	local -A name=([ours]=$iqn-ours [LIO]=$iqn [tgt]=$iqn-tgt) port=([ours]=3261 [LIO]=$lio_port [tgt]=3260)
	local -A lun=([ours]=1 [LIO]=0 [tgt]=1) sum costs
	for who in ours LIO tgt; do attach "${name[$who]}" "${port[$who]}" "${lun[$who]}"; done
	target_counts
	before=$(counted bounced_bytes)
	for kind in 4k-read 4k-write 1m-read 1m-write; do
		sum=([ours]=0 [LIO]=0 [tgt]=0) costs=([ours]=0 [LIO]=0 [tgt]=0)
		for ((round = 0; round < rounds; round++)); do
			for who in ours LIO tgt; do
				load "$(disk_of "${name[$who]}" "${lun[$who]}")" $kind
				say "$kind $who: $rate a second, $cost us of the processor each"
				sum[$who]=$((sum[$who] + rate)) costs[$who]=$((costs[$who] + cost))
			done
		done
		summary+="$kind:"
		for who in ours LIO tgt; do
			summary+=" $who $((sum[$who] / rounds))/s $((costs[$who] / rounds)) us,"
		done
		summary+=" ours of LIO $(of ${sum[ours]} ${sum[LIO]}), of tgt $(of ${sum[ours]} ${sum[tgt]}); "
	done
	target_counts
	after=$(counted bounced_bytes)
	say "$(counted data_in) bytes in, $(counted data_out) bytes out, $((after - before)) copied"
	grep ' counters ' /run/target.log | tail -n 1
	[ "$before" = "$after" ] || fail "our target copied $((after - before)) bytes for its transport"
	note "${summary}0 bytes copied by ours"
	say "$summary"
}

target_name=$iqn-ours target_port=3261 tgt_name=$iqn-tgt
fabric_up "$transport"
for name in "$@"; do scenario "$name" "${name//-/_}"; done
