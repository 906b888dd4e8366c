# shellcheck shell=bash
# What the guest's scripts share: the report to the host, the network, the kernel's initiator (open-iscsi)
# and the kernel's target (LIO).
set -euo pipefail

iqn=iqn.2024-01.org.example:disk
last_lun=0 # the target's
target_name=$iqn target_port=3260 # ours
tgt_name=$iqn
lio_port=3260
initiator=iqn.2024-01.org.example:initiator
here=10.9.9.1 there=10.9.9.2
user=initiator secret=initiator-pw-1
target_user=target target_secret=target-pw-2468

# --- report ----------------------------------------------------------------

say() { printf '%s\n' "$*"; }
fail() { say "FAILED: $*"; exit 1; }
note() { say "$*" >/run/note; }
# limit WORDS: what the peer was seen not to do; the scenario's result is that.
limit() { note "$*"; : >/run/limit; }

# scenario NAME CMD...: runs CMD in a shell of its own and reports to the host, which reads lines that begin
# with @: result, seconds, name, note. The full output follows when it fails.
scenario() {
	local start=$SECONDS status result=ok
	: >/run/note
	rm -f /run/copy.log /run/limit
	dmesg -C
	set +e # in a condition, `set -e` would have no effect inside the subshell
	(set -e; trap 'tail -n 1 /run/scenario.log >/run/last; clean_up' EXIT; "${@:2}") >/run/scenario.log 2>&1
	status=$?
	set -e
	[ ! -e /run/limit ] || result=limit
	if [ $status != 0 ]; then
		result=FAILED
		tail -n 40 /run/scenario.log
		[ ! -e /run/copy.log ] || tail -n 15 /run/copy.log
		dmesg | tail -n 15
		mend_network
	fi
	[ $status = 0 ] || note "$(cat /run/last)"
	say "@ $result $((SECONDS - start)) $1 $(head -n 1 /run/note)"
}

# wait_for SECONDS CMD...: asks until CMD succeeds. Three times as long as it should take: the machine may be busy.
wait_for() {
	local end=$((SECONDS + 3 * $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "waited in vain for: $*"
		sleep 0.2
	done
}

# --- network ---------------------------------------------------------------

# fabric_up TRANSPORT: two ports, va (10.9.9.1, the initiator's) and vb (10.9.9.2, the target's), each with a cable to a switch,
# in one network namespace, as soft RoCE receives in the first one only. Routing by policy sends the packets
# between the two local addresses over the pair, where tcpdump, iptables and a pulled cable can get at them. What is
# there stays: several scripts may share a guest.
fabric_up() {
	[ -e /sys/class/net/va ] || cable_up
	case $1 in
	tcp) iface=default ;;
	# rxe: soft RoCE; siw: soft iWARP. An RDMA device on each end.
	rxe | siw)
		# shellcheck disable=SC2034  # for the caller
		iface=iser
		[ ! -e "/sys/class/infiniband/${1}a" ] || return 0
		modprobe -a "${1/#rxe/rdma_rxe}" ib_uverbs rdma_ucm
		rdma link add "${1}a" type "$1" netdev va
		rdma link add "${1}b" type "$1" netdev vb
		;;
	*) fail "unknown transport $1" ;;
	esac
}
cable_up() {
	modprobe -a veth bridge
	ip link add sw mtu 4200 type bridge
	# The switch has no address, and must not answer for those of the ports.
	sysctl -qw net.ipv4.conf.sw.arp_ignore=8 net.ipv6.conf.sw.disable_ipv6=1
	ip link set sw up
	local dev
	for dev in va vb; do
		ip link add $dev mtu 4200 type veth peer name $dev-sw mtu 4200
		sysctl -qw "net.ipv4.conf.$dev.accept_local=1" "net.ipv4.conf.$dev.rp_filter=0" \
			"net.ipv6.conf.$dev.disable_ipv6=1" "net.ipv6.conf.$dev-sw.disable_ipv6=1"
		ip link set $dev-sw master sw
		ip link set $dev up
	done
	ip addr add $here/24 dev va
	ip addr add $there/24 dev vb
	link_up
	# A neighbour that is given up while the cable is out makes Linux 6.1's ib_iser take its connection for one that was never
	# made: it does not end it, and panics at the next response there (NULL pointer in iscsi_verify_itt).
	ip neigh replace $there lladdr "$(cat /sys/class/net/vb/address)" dev va nud permanent
	ip neigh replace $here lladdr "$(cat /sys/class/net/va/address)" dev vb nud permanent
	# Its modules take seconds to load, in which what is to be broken would be over.
	iptables -S INPUT >/dev/null
	ip route add $there dev va src $here table 100
	ip route add $here dev vb src $there table 100
	ip rule add pref 10 iif va lookup local
	ip rule add pref 11 iif vb lookup local
	ip rule add pref 12 to 10.9.9.0/24 lookup 100
	ip rule add pref 20 lookup local
	ip rule del pref 0
}

# Both cables. The ports lose their carrier, and nothing else: were a port itself taken down, it would lose its route too, and
# soft RoCE's queue pair for connection management does not survive a send without one (Linux 6.1 moves it to the error state
# and, when it is set right again, goes on to drop all that it receives).
link_up() { ip link set va-sw up && ip link set vb-sw up; }
link_down() { ip link set va-sw down && ip link set vb-sw down; }

# Ways to break a connection; each mends what it broke, once the initiator has `noticed` (the caller's function).
pull_cable() { link_down; wait_for 20 noticed; link_up; }
drop_packets() { iptables -A INPUT -i vb -j DROP; wait_for 20 noticed; iptables -D INPUT -i vb -j DROP; }
# Four bytes turned over in every twentieth large packet from the target, until `spare_data`. No TCP checksum is there to tell:
# between the ports of one machine none is made.
spoil_data() {
	modprobe -a sch_ingress cls_u32 act_gact act_pedit
	tc qdisc replace dev vb clsact
	# Large: 0x4000 of the length in its IP header.
	tc filter add dev vb egress protocol ip u32 match u16 0x4000 0x4000 at 2 \
		action gact pass random determ pipe 20 action pedit munge offset 9000 u32 invert
}
# Fails when nothing was spoiled.
spare_data() {
	spoiled=$(tc -s filter show dev vb egress | sed -n '/ pedit /,$s/.*Sent [0-9]* bytes \([0-9]*\) pkt.*/\1/p' | tail -n 1)
	tc qdisc del dev vb clsact
	[ "${spoiled:-0}" -gt 0 ] || fail "no data were spoiled"
}
reset_connection() { ss -K -t dst $there dport = 3260; }

# Some packets lost, all late and out of order, until `hurry_packets`: no connection has to break.
delay_packets() {
	modprobe sch_netem
	local dev
	for dev in va vb; do tc qdisc replace dev $dev root netem delay 20ms 10ms loss 1%; done
}
# Fails when none was lost: then none went through the queue.
hurry_packets() {
	lost=$(tc -s qdisc show | sed -n '/netem/{n;s/.*(dropped \([0-9]*\),.*/\1/p}' | awk '{ n += $1 } END { print n + 0 }')
	tc qdisc del dev va root
	tc qdisc del dev vb root
	[ "$lost" -gt 0 ] || fail "no packet was lost"
}
# What a scenario that failed may have left broken, for the next one.
mend_network() {
	[ ! -e /sys/class/net/va-sw ] || link_up
	iptables -D INPUT -i vb -j DROP 2>/dev/null || true
	local dev
	for dev in va vb; do tc qdisc del dev $dev root 2>/dev/null || true; done
	tc qdisc del dev vb clsact 2>/dev/null || true
}

# --- data ------------------------------------------------------------------

# verify DEVICE MIB: random data written and read back, past the page cache.
verify() {
	local sum
	head -c "$2M" /dev/urandom >/run/verify
	dd if=/run/verify of="$1" bs=256k oflag=direct status=none
	sum=$(dd if="$1" bs=256k count=$(($2 * 4)) iflag=direct status=none | md5sum)
	[ "$sum" = "$(md5sum </run/verify)" ] || fail "read from $1 is not what was written"
	rm /run/verify
}

# fio_mix DEVICE SECONDS: reads and writes of mixed sizes at depth 16; every block written is read again.
fio_mix() {
	fio --name=mix --filename="$1" --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw \
		--bsrange=512-64k --size=32m --verify=crc32c --verify_backlog=256 --time_based --runtime="$2" \
		--output=/run/fio.out || { cat /run/fio.out; fail "fio on $1"; }
	grep -q 'err= 0' /run/fio.out || { cat /run/fio.out; fail "fio reports errors"; }
	sed -n 's/^ *\(READ\|WRITE\): bw=\([^ ]*\).*/\1 \2/p' /run/fio.out | tr '\n' ' '
}

# --- kernel initiator ------------------------------------------------------

initiator_start() {
	! pgrep -x iscsid >/dev/null || return 0
	modprobe -a sd_mod sg iscsi_tcp
	[ ! -d /sys/class/infiniband ] || modprobe ib_iser
	mkdir -p /run/lock/iscsi /etc/iscsi
	say "InitiatorName=$initiator" >/etc/iscsi/initiatorname.iscsi
	iscsid
	wait_for 10 grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
}

# login [SETTING VALUE]...: discovery, settings of the node record, login; waits for the last disk.
login() {
	# In a condition, `set -e` has no effect.
	iscsiadm -m discovery -t sendtargets -p $there -I "$iface" || return
	while [ $# -gt 1 ]; do
		iscsiadm -m node -T $iqn -o update -n "$1" -v "$2"
		shift 2
	done
	iscsiadm -m node -T $iqn -p $there -I "$iface" --login || return
	wait_for 20 disk "$last_lun"
}

# disk LUN: its block device.
disk() {
	local dir
	for dir in /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/sd*; do
		[ -e "$dir" ] && say "/dev/${dir##*/}" && return
	done
	return 1
}

logout() {
	iscsiadm -m node -T $iqn --logout
	! disk 0 || fail "the disk outlived its session"
}

# Notice a silent connection after some 4 s; let I/O wait 60 s for a new session.
# shellcheck disable=SC2034  # for the caller
patience=(
	'node.conn[0].timeo.noop_out_interval' 2
	'node.conn[0].timeo.noop_out_timeout' 2
	node.session.timeo.replacement_timeout 60
)

# --- our target ------------------------------------------------------------

# our_target TRANSPORT: what it offers: the kernel's device, or iWARP without one.
our_target() {
	case $1 in
	rxe) offers=rdma ;;
	siw) offers=iwarp ;;
	*) offers=$1 ;;
	esac
}

# target_up [OPTION]...: LUN 0 in memory, LUN 1 a file in memory.
target_up() {
	truncate -s 128M /run/disk
	target_options=("$@")
	target_run
}
target_run() {
	"$PROGRAMS/iscsi-target" serve --portal $there:$target_port --iqn $target_name --lun ram:64M --lun /run/disk \
		--transport "$offers" "${target_options[@]}" >/run/target.ready 2>>/run/target.log &
	target=$!
	say $target >/run/target.pid
	wait_for 20 grep -q '^listening on' /run/target.ready
}
# target_down: SIGTERM has to end it cleanly.
target_down() {
	kill -0 "$target" || fail "the target ended by itself"
	kill "$target"
	wait "$target" || fail "the target's exit status is $?"
	rm /run/target.pid
}
# target_gone: whatever a scenario left.
target_gone() {
	[ ! -e /run/target.pid ] || { kill -9 "$(cat /run/target.pid)"; tail -n 20 /run/target.log; } || true
	rm -f /run/target.log /run/target.pid
}
# target_counts: has the target log what its open connections have moved and copied so far; the counts are in its last
# such line then, and `counted NAME` is one of them.
target_counts() {
	local lines
	lines=$(grep -c ' counters ' /run/target.log || true)
	kill -USR1 "$target"
	wait_for 10 eval "[ \$(grep -c ' counters ' /run/target.log) -gt $lines ]"
}
counted() { sed -n "s/.* counters .* $1=\([0-9]*\).*/\1/p" /run/target.log | tail -n 1; }

# --- tgt -------------------------------------------------------------------

# tgt_up iscsi|iser: a 64 MiB file as LUN 1. tgt listens on both transports, on iSER's always at port 3260.
tgt_up() {
	local lld=$1
	mkdir -p /run/tgtd
	tgtd -f --iscsi portal=127.0.0.1:3999 --iser pool_sz_mb=64 >/run/tgtd.log 2>&1 &
	say $! >/run/tgtd.pid
	truncate -s 64M /run/tgt.disk
	wait_for 20 tgtadm --lld "$lld" -o new -m target --tid 1 -T "$tgt_name"
	tgtadm --lld "$lld" -o new -m logicalunit --tid 1 --lun 1 -b /run/tgt.disk
	tgtadm --lld "$lld" -o bind -m target --tid 1 -I ALL
	# Over iSER the rule for addresses never matches; only one by name lets anybody in.
	tgtadm --lld "$lld" -o bind -m target --tid 1 -Q $initiator
}
tgt_gone() {
	[ ! -e /run/tgtd.pid ] || kill -9 "$(cat /run/tgtd.pid)" 2>/dev/null || true
	rm -f /run/tgtd.pid
}

# --- kernel target ---------------------------------------------------------

lio=/sys/kernel/config/target
tpg=$lio/iscsi/$iqn/tpgt_1

# lio_up TRANSPORT: a 64 MiB file, /run/lio.disk, as LUN 0 of $iqn for any initiator.
lio_up() {
	[ ! -e "$tpg" ] || return 0
	modprobe -a target_core_mod iscsi_target_mod
	modprobe target_core_file
	truncate -s 64M /run/lio.disk
	local store=$lio/core/fileio_0/disk0 portal=$tpg/np/$there:$lio_port
	mkdir -p $store
	echo "fd_dev_name=/run/lio.disk,fd_dev_size=67108864,fd_buffered_io=1" >$store/control
	echo 1 >$store/enable
	mkdir -p "$lio/iscsi" "$tpg/lun/lun_0"
	ln -s $store "$tpg/lun/lun_0/disk"
	echo 0 >"$tpg/attrib/authentication"
	echo 0 >"$tpg/attrib/demo_mode_write_protect"
	echo 1 >"$tpg/attrib/generate_node_acls"
	echo 1 >"$tpg/attrib/cache_dynamic_acls"
	echo 1 >"$tpg/enable"
	case $1 in
	tcp) mkdir "$portal" ;;
	# LIO opens the TCP listener in any case, and iWARP then finds its port taken: the listener goes into a
	# network namespace that nobody can reach.
	*)
		unshare -n sh -c "ip addr add $there/32 dev lo && ip link set lo up && mkdir $portal"
		modprobe ib_isert
		echo 1 >"$portal/iser"
		;;
	esac
}

# lio_auth none|chap|mutual: who has to prove what.
lio_auth() {
	local none=NULL
	case $1 in
	none) lio_credentials 0 $none $none $none $none ;;
	chap) lio_credentials 1 $user $secret $none $none ;;
	mutual) lio_credentials 1 $user $secret $target_user $target_secret ;;
	esac
}
lio_credentials() {
	echo "$1" >"$tpg/attrib/authentication"
	# LIO would take a line feed for part of the name.
	printf '%s' "$2" >"$tpg/auth/userid"
	printf '%s' "$3" >"$tpg/auth/password"
	printf '%s' "$4" >"$tpg/auth/userid_mutual"
	printf '%s' "$5" >"$tpg/auth/password_mutual"
}

# lio_recovery LEVEL CONNECTIONS: what LIO grants a session.
lio_recovery() {
	echo "$1" >"$tpg/attrib/default_erl"
	echo "$2" >"$tpg/param/MaxConnections"
}
