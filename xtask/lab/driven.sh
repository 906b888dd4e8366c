#!/bin/sh
# What makes the kernel's initiator do something for a case of iscsi-conform, and what ends all that is left of it:
# driven.sh attach|read|write|discover|after PORTAL. Not in bash, which takes longer to start than all of this.
set -eu

target=iqn.2026-01.org.example:iscsi-conform
portal=${2#iscsi://}
# There while iscsid logs in.
busy=/run/driven.busy

node() { iscsiadm -m node -T $target -p "$portal" "$@"; }
there() { [ -e "$1" ]; }
sessions() { there /sys/class/iscsi_session/session*; }

# with_disk CMD...: logs in, does something with the disk, and logs out.
with_disk() {
	: >$busy
	node --login || { rm $busy; exit 1; }
	rm $busy
	tries=30
	until there /sys/class/iscsi_session/session*/device/target*/*:0/block/sd*; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || exit 1
		sleep 0.1
	done
	for device in /sys/class/iscsi_session/session*/device/target*/*:0/block/sd*; do "$@" "/dev/${device##*/}"; done
	node --logout
}
nothing() { :; }
read_blocks() { dd if="$1" of=/dev/null bs=64k count=1 iflag=direct; }
write_blocks() { dd if=/dev/zero of="$1" bs=64k count=1 oflag=direct; }

# iscsid keeps a session alive, and goes on with a login whose iscsiadm is gone. What it has begun it alone can end: to
# kill it would leave sessions in the kernel that no other iscsid takes over. While it logs in it refuses to log out.
after() {
	if [ -e $busy ]; then
		rm $busy
		sleep 0.3
	fi
	tries=40
	while sessions; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { echo "a session that does not end"; exit 1; }
		timeout 5 iscsiadm -m node -U all || sleep 0.2
	done
}

case $1 in
attach) with_disk nothing ;;
read) with_disk read_blocks ;;
write) with_disk write_blocks ;;
discover) iscsiadm -m discovery -t sendtargets -p "$portal" -o nonpersistent ;;
after) after 2>/dev/null ;;
esac
