#!/bin/bash
# sg3_utils through the kernel's initiator at our target: tools.sh TRANSPORT SCENARIO...
# PROGRAMS is where our programs are. Judged by exit codes, and by the fields of the output that T10's texts decide.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
last_lun=1
second=iqn.2024-01.org.example:second

clean_up() {
	iscsiadm -m node -T $iqn --logout 2>/dev/null || true
	iscsiadm -m node -T $iqn -o delete 2>/dev/null || true
	target_gone
}

# says WORDS CMD...: CMD succeeds and its output holds the words.
says() {
	local words=$1
	shift
	"$@" >/run/said 2>&1 || { cat /run/said; fail "$*: exit status $?"; }
	grep -qF -- "$words" /run/said || { cat /run/said; fail "$*: nothing of '$words'"; }
}
# ends STATUS CMD...: CMD's exit status is the one sg3_utils has for the outcome (sg3_utils(8)).
ends() {
	local want=$1 got=0
	shift
	"$@" >/run/said 2>&1 || got=$?
	[ "$got" = "$want" ] || { cat /run/said; fail "$*: exit status $got, not $want"; }
}
reservation_conflict=24 lba_out_of_range=22

# blocks DEVICE FIRST COUNT: blocks of 512 bytes, past the page cache.
blocks() { dd if="$1" bs=512 skip="$2" count="$3" iflag=direct status=none; }
# large DEVICE FIRST COUNT: pieces of 256 KiB: an emulator takes its time for each command.
large() { dd if="$1" bs=256k skip="$2" count="$3" iflag=direct status=none; }
zeros() { head -c $(($1 * 512)) /dev/zero; }

# --- scenarios -------------------------------------------------------------

looks() {
	target_up
	login
	local d
	d=$(disk 1)
	says 'Vendor identification: iSCSI-RS' sg_inq "$d"
	says 'Supported VPD pages' sg_vpd "$d"
	local pages page
	pages=$(sg_vpd --quiet --hex "$d" | sed 's/^ *[0-9a-f]\+ *//; s/  .*//' | tr ' ' '\n' | sed -n '5,$p')
	for page in $pages; do ends 0 sg_vpd --page="0x$page" "$d"; done
	says 'designator type: NAA' sg_vpd --page=di "$d"
	says 'Unmap command supported (LBPU): 1' sg_vpd --page=lbpv "$d"
	says 'Maximum unmap LBA count' sg_vpd --page=bl "$d"
	ends 0 sg_vpd --all "$d"
	says '2 lun entries' sg_luns "$d"
	says 'Device size: 134217728 bytes' sg_readcap --long "$d"
	says 'lbpme=1, lbprz=1' sg_readcap --long "$d"
	for opcode in 'Compare and write' 'Unmap' 'Write same(16)' 'Persistent reserve out' 'Get LBA status'; do
		says "$opcode" sg_opcodes "$d"
	done
	says 'Abort task' sg_opcodes --tmf "$d"
	ends 0 sg_logs --all "$d"
	says 'Caching' sg_modes --all "$d"
	says 'Control' sg_modes --all "$d"
	ends 0 sg_turs "$d"
	ends 0 sg_requests "$d"
	ends 0 sg_sync "$d"
	logout
	target_down
	note "INQUIRY, VPD $(echo $pages), LUNs, capacity, opcodes, log and mode pages"
}

# disk_of SESSION: LUN 0 as that session of the kernel sees it.
disk_of() {
	local dir
	for dir in /sys/class/iscsi_session/"$1"/device/target*/*:0/block/sd*; do
		[ -e "$dir" ] && say "/dev/${dir##*/}" && return
	done
	return 1
}
# session_of NAME: the session of an initiator.
session_of() {
	local dir
	for dir in /sys/class/iscsi_session/session*; do
		[ "$(cat "$dir/initiatorname")" = "$1" ] && say "${dir##*/}" && return
	done
	return 1
}

# Two initiators and one disk.
reservations() {
	target_up
	login
	iscsiadm -m iface -I second -o new
	iscsiadm -m iface -I second -o update -n iface.transport_name -v tcp
	iscsiadm -m iface -I second -o update -n iface.initiatorname -v $second
	iscsiadm -m discovery -t sendtargets -p $there -I second
	iscsiadm -m node -T $iqn -p $there -I second --login
	local a b
	wait_for 20 eval "disk_of \$(session_of $second)"
	b=$(disk_of "$(session_of $second)")
	a=$(disk_of "$(session_of $initiator)")
	head -c 512 /dev/urandom >/run/block
	local write=(dd if=/run/block bs=512 count=1 oflag=direct status=none)

	ends 0 sg_persist --out --register --param-sark=abc1 "$a"
	says '0xabc1' sg_persist --in --read-keys "$a"
	ends 0 sg_persist --out --reserve --param-rk=abc1 --prout-type=1 "$a"
	says 'Write Exclusive' sg_persist --in --read-reservation "$b"
	"${write[@]}" of="$a" || fail "the holder cannot write"
	! "${write[@]}" of="$b" || fail "another initiator wrote"
	# WRITE EXCLUSIVE lets others read.
	blocks "$b" 0 1 | cmp - /run/block
	ends $reservation_conflict sg_persist --out --release --param-rk=abc1 --prout-type=1 "$b"

	ends 0 sg_persist --out --register --param-sark=def2 "$b"
	ends 0 sg_persist --out --preempt --param-rk=def2 --param-sark=abc1 --prout-type=3 "$b"
	says 'Exclusive Access' sg_persist --in --read-reservation "$b"
	says '0xdef2' sg_persist --in --read-keys "$b"
	! grep -q 0xabc1 /run/said || fail "the key that was preempted is still there"
	# The first command is told of it.
	sg_turs "$a" || true
	! blocks "$a" 0 1 >/run/read || fail "EXCLUSIVE ACCESS let another initiator read"
	says '0xdef2' sg_persist --in --read-full-status "$b"
	says 'Type Mask Valid(TMV): 1' sg_persist --in --report-capabilities "$b"
	ends 0 sg_persist --out --clear --param-rk=def2 "$b"
	says 'NO registered reservation keys' sg_persist --in --read-keys "$b"
	sg_turs "$a" || true
	"${write[@]}" of="$a" || fail "nothing is reserved, and the disk is not writable"
	iscsiadm -m node -T $iqn --logout
	target_down
	note "registered, reserved, kept out, preempted, cleared"
}

writes() {
	target_up
	login
	local d
	d=$(disk 1)
	head -c 2M /dev/urandom >/run/data
	dd if=/run/data of="$d" bs=64k oflag=direct status=none
	# 4096 blocks of data. Unmapped ones read as zeros (lbprz), their neighbours stay.
	ends 0 sg_unmap --lba=64 --num=128 "$d"
	blocks "$d" 64 128 | cmp - <(zeros 128)
	blocks "$d" 63 1 | cmp - <(dd if=/run/data bs=512 skip=63 count=1 status=none)
	blocks "$d" 192 1 | cmp - <(dd if=/run/data bs=512 skip=192 count=1 status=none)
	says 'deallocated' sg_get_lba_status --lba=64 "$d"
	says 'mapped' sg_get_lba_status --lba=1024 "$d"
	head -c 512 /dev/urandom >/run/block
	ends 0 sg_write_same --16 --lba=1024 --num=64 --in=/run/block "$d"
	local n
	for n in 1024 1055 1087; do blocks "$d" $n 1 | cmp - /run/block; done
	blocks "$d" 1088 1 | cmp - <(dd if=/run/data bs=512 skip=1088 count=1 status=none)
	ends 0 sg_write_same --10 --lba=1024 --num=8 --in=/dev/zero --xferlen=512 "$d"
	blocks "$d" 1024 8 | cmp - <(zeros 8)
	ends 0 sg_write_same --16 --unmap --lba=2048 --num=256 --in=/dev/zero --xferlen=512 "$d"
	blocks "$d" 2048 256 | cmp - <(zeros 256)
	ends 0 sg_verify --lba=1024 --count=64 "$d"
	ends 0 sg_sync --16 "$d"
	ends $lba_out_of_range sg_verify --16 --lba=262144 --count=1 "$d"
	logout
	target_down
	note "UNMAP, WRITE SAME, GET LBA STATUS, VERIFY; blocks compared"
}

# generic DEVICE: its pass-through device.
generic() {
	local dir
	for dir in /sys/block/"${1#/dev/}"/device/scsi_generic/sg*; do say "/dev/${dir##*/}"; done
}

copies() {
	target_up
	login
	local from to sum
	from=$(disk 0) to=$(disk 1)
	head -c 16M /dev/urandom >/run/data
	dd if=/run/data of="$from" bs=256k oflag=direct status=none
	ends 0 sgp_dd if="$(generic "$from")" of="$(generic "$to")" bs=512 bpt=128 count=32768 thr=4
	large "$to" 0 64 | cmp - /run/data
	# The same with FUA, and one request at a time.
	ends 0 sg_dd if="$(generic "$from")" of="$(generic "$to")" bs=512 seek=65536 count=8192 oflag=fua
	large "$to" 128 16 | cmp - <(head -c 4M /run/data)
	logout
	target_down
	note "16 MiB by sgp_dd with 4 threads, 4 MiB by sg_dd with FUA; equal"
}

fabric_up "$transport"
initiator_start
for name in "$@"; do scenario "$name" "${name//-/_}"; done
