#!/bin/bash
# The kernel's initiator at our target: serve.sh TRANSPORT SCENARIO...
# PROGRAMS is where our programs are. Each scenario starts a target of its own.
. "$(dirname "$0")/lib.sh"

transport=$1
shift

our_target "$transport"
last_lun=1

clean_up() {
	umount /run/mnt 2>/dev/null || true
	iscsiadm -m node -T $iqn --logout 2>/dev/null || true
	iscsiadm -m node -T $iqn -o delete 2>/dev/null || true
	target_gone
}

# negotiated WORD...: the session's own account holds the words.
negotiated() {
	iscsiadm -m session -P 2 >/run/session
	local word
	for word in "$@"; do
		grep -q "$word" /run/session || { cat /run/session; fail "not negotiated: $word"; }
	done
}

# --- scenarios -------------------------------------------------------------

login_plain() {
	target_up
	login
	sg_inq "$(disk 0)" | grep -i identification
	sg_readcap --16 "$(disk 1)" | grep 'Device size: 134217728 bytes'
	verify "$(disk 0)" 8
	verify "$(disk 1)" 8
	logout
	target_down
	note "two disks, data equal"
}

chap=(node.session.auth.authmethod CHAP node.session.auth.username "$user" node.session.auth.password "$secret")

login_chap() {
	target_up --chap-user $user --chap-secret $secret
	login "${chap[@]}"
	verify "$(disk 0)" 1
	logout
	target_down
}

login_mutual_chap() {
	target_up --chap-user $user --chap-secret $secret --mutual-user $target_user --mutual-secret $target_secret
	login "${chap[@]}" node.session.auth.username_in $target_user node.session.auth.password_in $target_secret
	verify "$(disk 0)" 1
	logout
	target_down
}

wrong_secret() {
	target_up --chap-user $user --chap-secret $secret
	! login "${chap[@]}" node.session.auth.password something-else || fail "a wrong secret was taken"
	login "${chap[@]}"
	verify "$(disk 0)" 1
	logout
	target_down
	note "refused, the next login served"
}

digests() {
	target_up
	login 'node.conn[0].iscsi.HeaderDigest' CRC32C 'node.conn[0].iscsi.DataDigest' CRC32C
	negotiated 'HeaderDigest: CRC32C' 'DataDigest: CRC32C'
	verify "$(disk 0)" 8
	logout
	target_down
}

# What the kernel's initiator offers of recovery where it is told to want all of it, and the target grants all of it.
recovery_offered() {
	target_up --error-recovery-level 2 --max-connections 4
	tcpdump -l -A -s 0 -i vb tcp dst port $target_port >/run/wire 2>/run/tcpdump.log &
	local dump=$! offered
	wait_for 20 grep -q 'listening on' /run/tcpdump.log
	login node.session.iscsi.ERL 2 node.session.iscsi.MaxConnections 4
	wait_for 10 grep -aq 'MaxConnections=' /run/wire
	kill $dump
	wait $dump || true
	# All values that are different, of discovery and of the session.
	offered=$(grep -aoE '(ErrorRecoveryLevel|MaxConnections)=[0-9]+' /run/wire | sort -u | xargs)
	[ "$offered" = "ErrorRecoveryLevel=0 MaxConnections=1" ] || fail "offers $offered: a row for each is due"
	[ "$(cat /sys/class/iscsi_session/session*/erl)" = 0 ] || fail "the kernel's session is at another level"
	verify "$(disk 0)" 1
	logout
	target_down
	limit "told to want level 2 and four connections, of a target that grants them, it offers $offered"
}

# Small bursts, so that most writes have to be asked for in several pieces; then no unsolicited data at all.
bursts() {
	target_up
	local small=(node.session.iscsi.FirstBurstLength 8192 node.session.iscsi.MaxBurstLength 16384)
	login "${small[@]}"
	negotiated 'FirstBurstLength: 8192' 'MaxBurstLength: 16384'
	verify "$(disk 0)" 4
	logout
	login "${small[@]}" node.session.iscsi.ImmediateData No node.session.iscsi.InitialR2T Yes
	negotiated 'MaxBurstLength: 16384' 'ImmediateData: No' 'InitialR2T: Yes'
	verify "$(disk 0)" 4
	logout
	target_down
}

filesystem() {
	target_up
	login
	local sum
	mkfs.ext4 -q -E nodiscard "$(disk 1)"
	mkdir -p /run/mnt
	mount -o discard "$(disk 1)" /run/mnt
	cp -a /usr/share/doc/bash /run/mnt/doc
	cp -a /usr/bin/bash /run/mnt/
	sum=$(cd /run/mnt && find . -type f -exec md5sum {} + | sort | md5sum)
	umount /run/mnt
	logout
	# A new session and an empty page cache: the data have to come from the target.
	login
	e2fsck -fn "$(disk 1)"
	mount "$(disk 1)" /run/mnt
	[ "$sum" = "$(cd /run/mnt && find . -type f -exec md5sum {} + | sort | md5sum)" ] || fail "files changed"
	rm -r /run/mnt/doc
	fstrim -v /run/mnt
	umount /run/mnt
	logout
	target_down
	note "ext4 made, filled, checked, trimmed"
}

fio_verify() {
	target_up
	login
	note "$(fio_mix "$(disk 1)" "$fio_seconds")in $fio_seconds s"
	logout
	target_down
}

# A target that does not answer for a while: the commands' time runs out, and the kernel sends ABORT TASK.
aborts() {
	target_up
	login 'node.conn[0].timeo.noop_out_interval' 0 'node.conn[0].timeo.noop_out_timeout' 0
	local sd count before
	sd=$(disk 0)
	echo 2 >"/sys/block/${sd#/dev/}/device/timeout"
	before=$(requests)
	kill -STOP "$target"
	dd if="$sd" of=/dev/null bs=4k count=8 iflag=direct 2>/run/dd.log &
	local reader=$!
	wait_for 20 eval "[ \$(requests) -gt $before ]"
	kill -CONT "$target"
	wait $reader || { cat /run/dd.log; fail "the read did not survive the abort"; }
	count=$(($(requests) - before))
	verify "$sd" 2
	sg_reset --no-esc --device "$sd"
	sg_reset --no-esc --target "$sd" || true # the kernel may not offer it
	verify "$sd" 2
	logout
	target_down
	note "$count requests, then a LUN reset"
}

# requests: task management requests that the kernel has sent.
requests() { iscsiadm -m session -s | sed -n 's/.*tmfcmd_pdus: *//p' | head -n 1; }

# breaking CMD...: runs CMD under load; the kernel has to log in again and move data again, and what was written before and
# after has to be there in a session that did not write it.
breaking() {
	rm -f /run/disk # no block of an earlier scenario may look like one of this
	target_up
	login "${patience[@]}"
	local sd load pass before at start
	sd=$(disk 1)
	fio --name=load --filename="$sd" --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite \
		--bsrange=4k-64k --size=16m --verify=crc32c --verify_backlog=64 --time_based --runtime=300 \
		--output=/run/fio.out &
	load=$!
	once "$sd" --rate=,1m --verify_backlog=64 &
	pass=$!
	at=$(sectors "$sd")
	wait_for 20 eval "[ \$(sectors $sd) -gt $((at + 4096)) ]"
	before=$(logins)
	start=$SECONDS
	kill -0 $pass || fail "the pass was over before the connection broke"
	"$@"
	wait_for 60 eval "[ \$(logins) -gt $before ]"
	wait_for 60 logged_in
	at=$(sectors "$sd")
	wait_for 30 eval "[ \$(sectors $sd) -gt $at ]"
	note "back after $((SECONDS - start)) s, 8 MiB verified in a new session"
	wait_for 60 eval "! kill -0 $pass"
	wait $pass || { cat /run/once.out; fail "a pass of writes saw an error"; }
	# fio then ends with a status of its own for the signal: what it says of its job counts.
	kill -INT $load
	wait $load || true
	if ! grep -q 'err= 0' /run/fio.out || grep -q 'verify: ' /run/fio.out; then
		cat /run/fio.out
		fail "fio saw an error"
	fi
	logout
	login
	once "$(disk 1)" --verify_only || { cat /run/once.out; fail "what was written is not there"; }
	logout
	target_down
}
# once DEVICE [OPTION]...: writes each block of 8 MiB once, at random; with --verify_only reads what it has written.
once() {
	fio --name=once --filename="$1" --offset=64m --size=8m --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite \
		--bsrange=4k-64k --verify=crc32c --output=/run/once.out "${@:2}"
}
noticed() { ! logged_in; }
logged_in() { grep -q LOGGED_IN /sys/class/iscsi_session/session*/state; }
# As the target counts them: one that stops asks for a logout, so that the kernel need not see an error.
logins() { grep -c "logged in.*$iqn" /run/target.log || true; }
sectors() { awk '{ print $7 }' "/sys/block/${1#/dev/}/stat"; }

# The file keeps what was written; the disk in memory would not.
restart_target() { target_down; sleep 3; target_run; }
# Without a word: whatever was not answered has to be sent again.
kill_target() {
	kill -9 "$target"
	wait "$target" || true
	sleep 3
	target_run
}

# Nothing has to break, and nothing is lost.
packets_delayed() {
	target_up
	login "${patience[@]}"
	delay_packets
	local mix
	mix=$(fio_mix "$(disk 1)" 10)
	hurry_packets
	note "$mix, $(logins) login, $lost packets lost"
	logout
	target_down
}

cable_pulled() { breaking pull_cable; }
packets_lost() { breaking drop_packets; }
connection_reset() { breaking reset_connection; }
target_restarted() { breaking restart_target; }
target_killed() { breaking kill_target; }

fabric_up "$transport"
initiator_start
fio_seconds=${FIO_SECONDS:-15}
for name in "$@"; do scenario "$name" "${name//-/_}"; done
